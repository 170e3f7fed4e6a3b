"""The player: what is in the file, how large it gets, and what a browser makes of it."""

import base64
import gzip
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import uniform_filter

from paths import player
from paths.analysis import Analysis
from paths.player import EASY, HARD, WRONG, write_player
from paths.recorded import Recorded
from tests.paths.browser import Page, numbers, wait_until

HOSTILE = ["</script><script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "<!--{{data}}\u2028", "d"]


def recorded(num_samples=120, num_steps=12, num_classes=4, num_wrong=20, seed=0, **changes):
    """Samples whose path goes to their clean class first and ends at their given label, in steps of noise."""
    rng = np.random.default_rng(seed)
    clean = rng.integers(num_classes, size=num_samples)
    given = clean.copy()
    given[:num_wrong] = (given[:num_wrong] + 1) % num_classes
    towards = np.linspace(0, 1, num_steps)[:, None]
    logits = 0.5 * rng.normal(size=(num_samples, num_steps, num_classes))
    one_hot = np.eye(num_classes)
    logits += 6 * (np.minimum(towards, 1 - towards) * one_hot[clean][:, None] + towards**3 * one_hot[given][:, None])
    q = np.exp(logits)
    path = np.asfortranarray((q / q.sum(2, keepdims=True)).astype(np.float16))
    pixels = rng.integers(0, 256, (num_samples, 8, 8, 1)).astype(np.uint8)
    known = dict(name="run", path=path, given=given, clean=clean, images=lambda idx: pixels[idx], step_name="epoch")
    return Recorded(**{"class_names": [f"class {k}" for k in range(num_classes)], **known, **changes})


def written(tmp_path, **changes):
    """(the page's text, its JSON, its path (n, S, K) uint8) of recorded(**changes)."""
    write_player(Analysis(recorded(**changes)), tmp_path / "player.html")
    page = (tmp_path / "player.html").read_text(encoding="utf-8")
    data = json.loads(part(page, "data"))
    q = np.frombuffer(gzip.decompress(base64.b64decode(part(page, "path"))), np.uint8)
    return page, data, q.reshape(len(data["idx"]), len(data["steps"]), len(data["classNames"]))


def part(page, name):
    return re.search(rf'<script type="[a-z/]+" id="{name}">(.*?)</script>', page, re.S)[1]


def noted(page):
    """The numbers in the page's note on what is not shown, or not as it is."""
    return set(numbers(re.search(r'<p class="quiet">(.*?)</p>', page, re.S)[1]))


def test_the_page_holds_the_path_of_every_sample_to_a_255th(tmp_path):
    _, data, q = written(tmp_path)
    values = recorded()
    assert sorted(data["idx"]) == list(range(120)) and data["steps"] == list(range(12))
    np.testing.assert_allclose(q / 255, values.path[data["idx"]].astype(np.float32), atol=0.003)
    assert data["given"] == values.given[data["idx"]].tolist() and data["truth"] == values.clean[data["idx"]].tolist()


def test_kinds_are_the_mislabelled_and_of_the_others_the_hardest_tenth_and_the_easier_half(tmp_path):
    _, data, _ = written(tmp_path)
    values = recorded()
    kind = np.full(120, -1)
    kind[data["idx"]] = data["kind"]
    assert np.flatnonzero(kind == WRONG).tolist() == list(range(20))
    mean = values.path[np.arange(120), :, values.given].astype(np.float32).mean(1)
    order = 20 + np.argsort(mean[20:])
    assert set(np.flatnonzero(kind == HARD)) == set(order[:10]) and set(np.flatnonzero(kind == EASY)) == set(order[50:])
    for name, found in data["featured"].items():
        assert len(found) == 3 and {data["kind"][i] for i in found} == {int(name)}


def test_where_nobody_knows_suspects_and_suggestions_stand_for_them(tmp_path):
    values = recorded(clean=None)
    analysis = Analysis(values)
    _, data, _ = written(tmp_path, clean=None)
    found = {i for i, kind in zip(data["idx"], data["kind"], strict=True) if kind == WRONG}
    assert found == set(analysis.order[: analysis.num_suspects].tolist()) and found
    assert data["truth"] == analysis.suggestion[data["idx"]].tolist() and not data["known"]


def test_of_many_samples_featured_ones_and_a_random_part_are_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(player, "MOST_SAMPLES", 100)
    page, data, _ = written(tmp_path, num_samples=400, num_wrong=80)
    assert len(data["idx"]) == len(set(data["idx"])) == 100
    assert all(data["featured"].values())
    assert 10 <= sum(kind == WRONG for kind in data["kind"]) <= 30
    assert {"100", "400"} <= noted(page)


def test_long_paths_are_thinned_and_gaps_hold_the_step_before(tmp_path):
    values = recorded(num_steps=250)
    values.path[7, 100:] = 0
    page, data, q = written(tmp_path, num_steps=250, path=values.path)
    assert len(data["steps"]) == 100 and data["steps"][0] == 0 and data["steps"][-1] == 249
    assert {"100", "250"} <= noted(page)
    seventh = q[data["idx"].index(7)]
    np.testing.assert_allclose(seventh[-1] / 255, values.path[7, 99].astype(np.float32), atol=0.003)


def test_a_page_that_would_be_too_large_leaves_samples_out_then_makes_pictures_smaller_and_says_so(
    tmp_path, monkeypatch
):
    rng = np.random.default_rng(0)
    patches = rng.integers(0, 256, (300, 4, 4, 3)).astype(np.uint8)
    pixels = [np.asarray(Image.fromarray(image).resize((64, 64))) for image in patches]
    many = dict(num_samples=300, num_steps=40, num_classes=20, images=lambda idx: [pixels[i] for i in idx])
    many["path"] = rng.dirichlet(np.ones(20), (300, 40))
    whole, data, _ = written(tmp_path, **many)
    assert len(data["idx"]) == 300 and data["pictures"][0][1:] == [64, 64]
    monkeypatch.setattr(player, "MOST_PATH", 200_000)
    monkeypatch.setattr(player, "MOST_PICTURES", 120_000)
    page, data, q = written(tmp_path, **many)
    assert len(part(page, "path")) <= 200_000 and sum(len(file) for file, _, _ in data["pictures"]) <= 120_000
    shown, side = len(data["idx"]), max(data["pictures"][0][1:])
    assert 100 < shown == len(q) < 300 and side < 64
    assert {str(shown), "300", str(side)} <= noted(page)
    assert set(range(len(data["idx"]))) >= {i for found in data["featured"].values() for i in found}


def test_a_page_of_the_largest_path_and_pictures_is_below_20_megabytes(tmp_path):
    """All else that is in a page: what it has for 2,000 samples with long texts and names, in six bytes a letter."""
    long = dict(num_classes=100, class_names=["ü" * 50] * 100, texts=["ü" * 240] * 2000, images=None)
    page, _, _ = written(tmp_path, num_samples=2000, num_steps=2, **long)
    rest = len(page.encode()) - len(part(page, "path"))
    assert player.MOST_PATH + player.MOST_PICTURES + rest < 20e6


def test_pictures_are_the_samples_own(tmp_path):
    page, data, _ = written(tmp_path, num_samples=60)
    own = recorded(num_samples=60).images
    for i in (0, 17, 59):
        found = np.asarray(Image.open(io.BytesIO(base64.b64decode(data["pictures"][i][0]))).convert("L"))
        assert np.abs(found - own(np.array([data["idx"][i]]))[0, :, :, 0].astype(int)).max() <= 60  # noise, with loss


def test_a_run_without_pictures_without_suspects_and_with_two_classes_is_shown(tmp_path):
    few = dict(images=None, clean=None, num_classes=2, num_samples=9, num_wrong=0, num_steps=1)
    page, data, q = written(tmp_path, **few)
    assert data["pictures"] is None and q.shape == (9, 1, 2) and not data["featured"][str(WRONG)]


def test_nothing_from_outside_becomes_markup_and_no_address_is_named(tmp_path):
    page, data, _ = written(tmp_path, class_names=HOSTILE, name="".join(HOSTILE))
    plain, _, _ = written(tmp_path)
    assert data["classNames"] == HOSTILE and "<script>alert" not in page and "<img" not in page
    assert re.findall("<[a-z/]+", page) == re.findall("<[a-z/]+", plain)
    assert "://" not in page.replace("http://www.w3.org/2000/svg", "") and "innerHTML" not in page
    policy = re.search('Content-Security-Policy" content="([^"]*)"', page)[1]
    assert "default-src 'none'" in policy and "unsafe" not in policy


# ---------------------------------------------------------------------------------------- the browser


PAUSE = "Pause"  # what the button says that plays, while it plays


class Player(Page):
    def step(self):
        return float(self.one("#step").get_property("value"))

    def now(self):
        """[the step shown, the last one], as they are written."""
        return numbers(self.text("#now"))

    def playing(self):
        return self.text("#play") == PAUSE

    def stop(self):
        return self.run('return Number(document.querySelector("#stops [aria-pressed=true]").value)')

    def type(self, key, code="", target="document.body", **more):
        """A key of any keyboard, as the browser tells of it. Returns whether the page took it."""
        settings = json.dumps({"key": key, "code": code, "bubbles": True, "cancelable": True, **more})
        return not self.run(f'return {target}.dispatchEvent(new KeyboardEvent("keydown", {settings}))')

    def pixels(self):
        """The picture's colours, (H, W, 4)."""
        png = self.run('return document.querySelector("#dots").toDataURL().split(",")[1]')
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGBA")).astype(int)

    def where(self, color):
        """Where the picture has the colour of a CSS variable: (n, 2) of x, y."""
        code = self.run(f'return getComputedStyle(document.documentElement).getPropertyValue("--{color}")').strip()
        rgb = [int(code[i : i + 2], 16) for i in (1, 3, 5)]
        return np.argwhere(np.abs(self.pixels()[..., :3] - rgb).max(2) <= 25)[:, ::-1]

    def await_card(self, there=True):
        wait_until(lambda: self.one("#card").is_displayed() == there)


@pytest.fixture
def opened(tmp_path, load):
    """opened(hash, **changes): the player of recorded(**changes), at rest unless still=False."""

    def opened(at="", width=1280, height=860, still=True, scheme="light", **changes):
        written(tmp_path, **changes)
        file = tmp_path / "player.html"
        page = Player(load.browser)
        page.prefer(color_scheme=scheme, reduced_motion="reduce" if still else "no-preference")
        load(file, width, height, Player, at)
        wait_until(lambda: page.all("#stops [aria-pressed=true]") and page.text("#now"))
        return page

    return opened


def test_it_plays_from_the_start_to_the_end_and_stops_there(opened):
    page = opened(still=False, num_steps=5)
    wait_until(lambda: page.step() == 4 and not page.playing(), 20)
    assert page.now() == ["4", "4"]
    again = """document.querySelector("#play").click();
        return [document.querySelector("#play").textContent, Number(document.querySelector("#step").value)]"""
    word, step = page.run(again)
    assert word == PAUSE and step <= 4
    wait_until(lambda: page.step() == 4 and not page.playing(), 20)


def test_where_motion_is_unwanted_it_waits_and_still_plays_when_asked(opened):
    page = opened(num_steps=90)
    assert not page.playing() and page.step() == 0
    page.press("3")
    assert page.stop() == WRONG and not page.playing() and page.step() == 0
    page.press("space")
    assert page.playing()
    wait_until(lambda: page.step() > 1)
    page.press("space")
    held = page.step()
    page.press("1")
    assert not page.playing() and held > 1


def test_keys_work_on_keyboards_of_other_letters_and_leave_what_is_not_theirs(opened):
    page = opened()
    page.type("ArrowRight"), page.type("ArrowRight"), page.type("ArrowLeft")
    assert page.step() == 1
    for key, code in (("т", "KeyN"), ("n", "KeyL")):  # where n stands on a Latin keyboard; n of another Latin layout
        assert page.type(key, code)
        page.await_card()
        assert page.type("Escape")
        page.await_card(False)
    for modifier in ("ctrlKey", "altKey", "metaKey", "isComposing"):
        assert not page.type("n", "KeyN", **{modifier: True})
    for target in ('document.querySelector("#step")', 'document.querySelector("#corners select")'):
        assert not page.type("ArrowRight", target=target)
    assert page.step() == 1
    assert page.type("2", "Digit2", target='document.querySelector("#step")') and page.stop() == HARD
    assert not page.type("2", "Digit2", target='document.querySelector("#corners select")')
    assert not page.type(" ", "Space", target='document.querySelector("#play")')  # the button's own click
    page.type("v")
    assert page.one("#tour").get_attribute("aria-pressed") == "true"
    page.type("v", repeat=True)
    assert page.one("#tour").get_attribute("aria-pressed") == "true"


def test_the_slider_and_the_chart_scrub(opened):
    page = opened()
    page.one("#step").send_keys("\ue010")  # End
    assert page.now() == ["11", "11"]
    chart = page.one("#chart")
    page.hover(chart, -0.25 * chart.rect["width"], 0).click().perform()
    assert 2 < page.step() < 4 and not page.playing()


def test_the_story_counts_what_the_paths_do(opened):
    page, values = opened("#stop=3"), recorded()
    predicted = values.path[:20].astype(np.float32).argmax(2)
    shares = (predicted == values.clean[:20, None]).mean(0)
    best = int(shares.argmax())
    ends = [(predicted[:, -1] == labels[:20]).mean() for labels in (values.clean, values.given)]
    assert numbers(page.text("#text")) == [str(best), *(f"{100 * share:.0f}" for share in (shares[best], *ends))]
    assert [numbers(button.text)[-1] for button in page.all("#stops button")] == ["120", "50", "10", "20"]
    page.press("0")
    for expected in (EASY, HARD, WRONG):
        page.one("#next").click()
        assert page.stop() == expected
    assert not page.one("#next").is_displayed()


def test_dots_lie_in_their_corners_at_the_end_and_in_the_middle_at_the_start(opened):
    """The circle has class 0 at the top, and class 1 at the right; ten samples of class 0 are said to be of 1."""
    given, sure = np.repeat([1, 1, 2, 3], 10), np.repeat(np.eye(4)[[1, 1, 2, 3]], 10, axis=0)
    path = np.stack([np.full_like(sure, 0.25), sure], 1).astype(np.float16)
    clean = np.where(np.arange(40) < 10, 0, given)
    page = opened("#stop=3&step=1", path=path, given=given, clean=clean, images=None)
    page.type("n")  # one sample alone is followed then
    page.await_card()
    height, width = page.pixels().shape[:2]
    x, y = np.median(page.where("wrong"), axis=0)
    assert width / 2 + 0.15 * height < x and abs(y - height / 2) < 0.1 * height
    page.type("ArrowLeft")
    wait_until(lambda: page.now()[0] == "0")
    x, y = np.median(page.where("wrong"), axis=0)
    assert abs(x - width / 2) < 0.1 * height and abs(y - height / 2) < 0.1 * height


def test_hovering_shows_picture_and_label_and_a_tap_keeps_them(opened):
    page, values = opened("#stop=3&step=11"), recorded()
    dots, (height, width) = page.one("#dots"), page.pixels().shape[:2]
    mask = np.zeros((height, width))
    mask[tuple(page.where("wrong").T[::-1])] = 1
    mask[:, np.abs(np.arange(width) - width / 2) > height / 2] = 0  # off the pictures' frames
    y, x = np.unravel_index(uniform_filter(mask, 9).argmax(), mask.shape) - np.array([height / 2, width / 2])
    page.hover(dots, x, y)
    page.await_card()
    idx = int(re.search(r"idx (\d+)", page.text("#card"))[1])
    named = re.findall(r"class (\d)", page.text("#card"))  # the label, the clean one if it is another, those of now
    assert named[: 1 + (idx < 20)] == [str(labels[idx]) for labels in (values.given, values.clean)][: 1 + (idx < 20)]
    assert page.all("#card img")
    page.hover(page.one("h1"), 0, 0)
    page.await_card(False)
    box = dots.rect
    touch = {"clientX": box["x"] + width / 2 + float(x), "clientY": box["y"] + height / 2 + float(y), "pointerId": 1}
    touch = json.dumps(touch | {"pointerType": "touch"})
    page.run(f'document.querySelector("#dots").dispatchEvent(new PointerEvent("pointerdown", {touch}))')
    page.await_card()
    page.type("Escape")
    page.await_card(False)


def test_a_text_sample_is_shown_as_text(opened):
    texts = [f"<b>text {i}</b>" for i in range(119)] + [{"title": "long", "body": "word " * 100}]
    page = opened("#stop=3", images=None, texts=texts)
    page.press("n")
    page.await_card()
    idx = re.search(r"idx (\d+)", page.text("#card"))[1]
    assert page.text("#card q").strip("“”") == f"<b>text {idx}</b>"
    assert page.run('return JSON.parse(document.querySelector("#data").textContent).text').count(
        "title: long; body: " + ("word " * 100)[: player.MOST_TEXT - 19] + "…"
    )


def test_three_classes_are_a_simplex_of_the_chosen_ones(opened):
    page = opened("#stop=3&step=11")
    assert not page.one("#corners").is_displayed()
    page.one("#triangle").click()
    chosen = [int(s.get_property("value")) for s in page.all("#corners select")]
    assert len(set(chosen)) == 3
    other = ({0, 1, 2, 3} - set(chosen)).pop()
    page.choose("#corners select:nth-child(2)", other)
    page.choose("#corners select:nth-child(3)", chosen[0])  # taken: the two change places
    now = [int(s.get_property("value")) for s in page.all("#corners select")]
    assert now == [chosen[2], other, chosen[0]]


def test_the_tour_turns_while_time_stands_still(opened):
    page = opened("#stop=3&step=11", still=False)
    page.one("#tour").click()
    before = page.pixels()
    wait_until(lambda: (page.pixels() != before).mean() > 0.01)
    assert page.step() == 11
    page.one("#circle").click()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width, height", [(1280, 860), (390, 844)])
def test_it_is_accessible_and_fits_its_window(opened, scheme, width, height):
    long = ["a class name without end " * 4, *(f"class {k}" for k in range(3))]
    page = opened("#stop=3", width, height, scheme=scheme, class_names=long, name="aname" * 50)
    page.press("n")
    page.one("#triangle").click()
    assert page.violations() == []
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("num_classes", [2, 3, 100])
def test_few_and_many_classes_are_shown(opened, num_classes):
    page = opened("#step=11", num_classes=num_classes, num_samples=300)
    assert page.one("#views").is_displayed() == (num_classes > 3)
    page.press("n")
    page.await_card()
    if num_classes == 100:
        page.press("v", "v")
        assert len(page.all("#corners select:first-child option")) == 100
