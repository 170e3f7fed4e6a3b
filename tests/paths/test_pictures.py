"""Pictures and animations of paths: what is drawn is what was measured, and files stay whole and small."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from common import plots
from paths import animations, pictures, simplex
from paths.animations import distance_against_difficulty, zigzag
from paths.measures import compute, distance_to, low_pass
from paths.pictures import Scene

pytestmark = pytest.mark.filterwarnings("error")  # a collapsed layout, a mean of nothing, a missing glyph

HOSTILE = ["$\\frac{", "_a$b", "$x^{", "a\nb\t$$", "\\$", "^_{}%#&", " " * 3, "ü" * 60, "#", "<b>"]


def random_scene(num_samples=12, num_steps=9, num_classes=4, seed=0, **known):
    rng = np.random.default_rng(seed)
    q = np.exp(2 * rng.normal(size=(num_samples, num_steps, num_classes)))
    path = np.asfortranarray((q / q.sum(2, keepdims=True)).astype(np.float16))
    names = known.pop("class_names", None) or [f"class {k}" for k in range(num_classes)]
    return Scene(path, rng.integers(num_classes, size=num_samples), names, **known)


def one_hot(labels, num_classes=4):
    return np.eye(num_classes)[labels]


@pytest.fixture
def drawn(monkeypatch):
    """The figures that pictures would save."""
    figures = []
    monkeypatch.setattr(pictures, "save", lambda fig, out, title: figures.append(fig))
    return figures


def texts(fig):
    return [text.get_text() for text in fig.findobj(lambda artist: hasattr(artist, "get_text"))]


def titled(fig):
    """{the sample named in its title: a panel}."""
    return {int(re.search(r"\d+", ax.get_title())[0]): ax for ax in fig.axes if ax.get_title()}


# ----------------------------------------------------------------------------------------------- the simplex


def test_corners_are_corners_and_the_centre_is_the_centre():
    corners = simplex.barycentric(np.eye(5), [3, 0, 4])
    np.testing.assert_allclose(corners[[3, 0, 4]], simplex.TRIANGLE, atol=1e-12)
    centre = simplex.TRIANGLE.mean(0)
    np.testing.assert_allclose(corners[[1, 2]], [centre, centre], atol=1e-12)  # classes that are not drawn
    np.testing.assert_allclose(simplex.barycentric(np.full(5, 0.2), [3, 0, 4]), centre, atol=1e-12)
    np.testing.assert_allclose(simplex.barycentric(np.eye(5)[[3, 0]].mean(0), [3, 0, 4]), simplex.TRIANGLE[:2].mean(0))
    sides = np.linalg.norm(simplex.TRIANGLE - np.roll(simplex.TRIANGLE, 1, 0), axis=1)
    np.testing.assert_allclose(sides, 1)


def test_the_filtered_path_in_the_triangle_is_the_filter_of_its_points():
    sample = random_scene(num_classes=6).sample(3)
    x, y = sample.points(sample.raw).T.astype(np.float32)
    filtered = low_pass(np.stack([x, y], -1)[None])[0]
    np.testing.assert_allclose(sample.points(sample.filtered), filtered, atol=1e-5)


@pytest.mark.parametrize("num_classes", [2, 3, 10, 100])
def test_the_classes_drawn_are_given_true_and_then_the_most_probable(num_classes):
    scene = random_scene(num_classes=num_classes)
    scene.clean = np.random.default_rng(1).integers(num_classes, size=12)
    assert (scene.clean != scene.given).any()
    for row in range(12):
        sample = scene.sample(row)
        wanted = list(dict.fromkeys([scene.given[row], scene.clean[row]]))
        mean = scene.path[row].astype(np.float32).mean(0)
        rest = [k for k in np.argsort(-mean) if k not in wanted]
        assert sample.classes == (wanted + rest)[:3] and len(sample.classes) == min(3, num_classes)
        assert sample.others == pytest.approx(1 - mean[sample.classes].sum(), abs=2e-3)
        assert len(set(sample.colors)) == len(sample.classes)


def test_names_say_what_the_classes_are_to_the_sample():
    scene = random_scene(clean=np.arange(12) % 4)
    scene.given = np.where(np.arange(12) < 4, scene.clean, (scene.clean + 1) % 4)

    def named(row):
        """The classes of a sample's names, and whether each is called more than its name: given, true."""
        names = [name.split("class ") for name in scene.sample(row).names]
        return [int(k) for _, k in names], [bool(role) for role, _ in names]

    one, two = named(1), named(5)
    assert one[0][0] == 1 and one[1] == [True, False, False]  # given and true
    assert two[0][:2] == [2, 1] and two[1] == [True, True, False]
    scene.clean, scene.true_probs = None, np.tile([0.1, 0.2, 0.6, 0.1], (12, 1))
    assert named(4)[0][:2] == [1, 2]  # the class p* is largest at
    scene.clean = np.zeros(12, int)  # a clean label goes before p*'s largest class, and p* is drawn all the same
    assert named(4)[0][:2] == [1, 0]
    np.testing.assert_allclose(scene.sample(4).true_probs, [0.1, 0.2, 0.6, 0.1])


def test_a_sample_is_filtered_over_the_steps_at_which_it_was_visited():
    scene = random_scene(num_steps=10)
    scene.path[2, [0, 4, 9]] = 0
    visited = [1, 2, 3, 5, 6, 7, 8]
    sample = scene.sample(2)
    np.testing.assert_allclose(sample.time, np.array(visited) / 9)
    expected = low_pass(scene.path[2:3, visited].astype(np.float32), 1 - 0.95**20)[0]
    np.testing.assert_allclose(sample.filtered, expected, atol=2e-3)
    scene.smoothing = 1.0
    np.testing.assert_array_equal(scene.sample(2).filtered, scene.sample(2).raw)


def test_a_long_path_is_drawn_thinned_but_filtered_whole():
    scene = random_scene(num_samples=1, num_steps=4500, smoothing=0.01)
    sample = scene.sample(0)
    assert len(sample.time) == pictures.MOST_STEPS and sample.time[0] == 0 and sample.time[-1] == 1
    whole = low_pass(scene.path.astype(np.float32), 0.01)[0]
    np.testing.assert_allclose(sample.filtered[-1], whole[-1], atol=2e-3)


def test_a_trail_shows_the_path_up_to_a_time():
    scene = random_scene(num_steps=9)
    sample, ax = scene.sample(0), Figure().subplots()
    trail = simplex.Trail(ax, sample)
    for steps, time in ((1, 0), (5, 0.5), (9, 1)):
        trail.show(time)
        np.testing.assert_allclose(np.transpose(trail.line.get_data()), sample.points(sample.raw)[:steps])
        assert len(trail.trail.get_segments()) == steps - 1
        raw, filtered = (np.ravel(end.get_data()) for end in trail.ends)
        np.testing.assert_allclose(raw, sample.points(sample.raw)[steps - 1])
        np.testing.assert_allclose(filtered, sample.points(sample.filtered)[steps - 1])
    np.testing.assert_allclose(trail.trail.get_segments()[-1], sample.points(sample.filtered)[-2:])
    np.testing.assert_allclose(trail.trail.get_array(), np.arange(1, 9) / 8)


@pytest.mark.parametrize("num_steps, early_stop", [(9, 4), (9, 0), (9, 8), (4500, 1237)])  # 4500 are drawn thinned
def test_the_early_stop_is_marked_on_the_raw_path_once_it_is_reached(num_steps, early_stop):
    scene = random_scene(num_samples=1, num_steps=num_steps, early_stop=early_stop)
    trail = simplex.Trail(Figure().subplots(), scene.sample(0))
    place = scene.sample(0).points(scene.path[0, early_stop].astype(np.float32))
    np.testing.assert_allclose(np.ravel(trail.stop.get_data()), place, atol=1e-3)
    last = num_steps - 1
    for step, reached in ((early_stop - 1, False), (early_stop, True), (last, True)):
        trail.show(step / last)
        assert trail.stop.get_visible() == reached


def test_an_early_stop_at_which_a_sample_was_not_visited_is_marked_where_it_was_last():
    scene = random_scene(num_steps=9, early_stop=5)
    scene.path[1, [4, 5]] = 0
    trail = simplex.Trail(Figure().subplots(), scene.sample(1))
    place = scene.sample(1).points(scene.path[1, 3].astype(np.float32))
    np.testing.assert_allclose(np.ravel(trail.stop.get_data()), place, atol=1e-3)


def test_the_legend_says_when_the_early_stop_was_and_is_silent_without(drawn, tmp_path):
    for early_stop in (3, None):
        scene = random_scene(step_name="update", step_size=500, early_stop=early_stop)
        pictures.simplex_paths(scene, {"some": [3]}, "unused.png", "title")
        zigzag(scene, [3, 4], tmp_path / "a.gif", "title")  # lays itself out before the mark is reached
    with_stop, without = (set(texts(fig)) for fig in drawn)
    (stop,) = with_stop - without
    assert "1,500" in stop and without <= with_stop


def test_the_given_label_is_a_red_cross_at_its_corner_and_p_star_a_grey_one_where_it_lies(drawn):
    true_probs = np.random.default_rng(2).dirichlet(np.ones(4), size=12)
    scene = random_scene(true_probs=true_probs, idx=np.arange(100, 112))
    pictures.simplex_paths(scene, {"easy": [3, 5], "hard": [8]}, "unused.png", "title")
    (fig,) = drawn
    panels = titled(fig)
    assert list(panels) == [103, 105, 108]
    for row in (3, 5, 8):
        crosses = {
            line.get_color(): np.ravel(line.get_data()) for line in panels[100 + row].lines if line.get_marker() == "x"
        }
        np.testing.assert_allclose(crosses[plots.GIVEN], simplex.TRIANGLE[0])
        place = simplex.barycentric(true_probs[row], scene.sample(row).classes)
        np.testing.assert_allclose(crosses[plots.TRUTH], place, atol=1e-6)
    assert {"easy", "hard", "p*"} <= set(texts(fig))


def test_two_classes_are_drawn_against_time():
    scene = random_scene(num_classes=2)
    sample = scene.sample(0)
    points = sample.points(sample.raw, sample.time)
    np.testing.assert_allclose(points[:, 0], np.arange(9) / 8)
    np.testing.assert_allclose(points[:, 1], scene.path[0, :, scene.given[0]], atol=2e-3)


def test_probabilities_over_time_are_the_path_and_p_star(drawn):
    true_probs = np.random.default_rng(2).dirichlet(np.ones(4), size=12)
    scene = random_scene(true_probs=true_probs, step_name="update", step_size=3)
    pictures.probabilities_over_time(scene, {"some": [7]}, "unused.png", "title")
    (ax,) = drawn[0].axes
    sample = scene.sample(7)
    for k, color in zip(sample.classes, sample.colors, strict=True):
        raw, filtered, dotted = (line for line in ax.lines if line.get_color() == color)
        np.testing.assert_allclose(raw.get_data(), [np.arange(9) * 3, sample.raw[:, k]])
        np.testing.assert_allclose(filtered.get_ydata(), sample.filtered[:, k])
        np.testing.assert_allclose(dotted.get_ydata(), true_probs[7, k], rtol=1e-6)
    assert ax.get_xlabel() == "update" and set(sample.names) <= set(texts(drawn[0]))


def test_samples_never_visited_are_left_out(drawn):
    scene = random_scene()
    scene.path[[3, 4]] = 0
    pictures.simplex_paths(scene, {"a": [3, 5], "b": [4]}, "unused.png", "title")
    assert list(titled(drawn[0])) == [5]
    assert "b" not in texts(drawn[0])
    for draw in (pictures.simplex_paths, pictures.probabilities_over_time):
        with pytest.raises(ValueError):
            draw(scene, {"a": [3], "b": []}, "unused.png", "title")
    with pytest.raises(ValueError):
        zigzag(scene, [3, 4], "unused.gif", "title")


# --------------------------------------------------------------------------------------------- all samples


def test_a_data_map_leaves_out_nan_and_counts_all_but_draws_some(drawn, monkeypatch):
    scene = random_scene(num_samples=90)
    scene.path[:10] = 0
    measures, wrong = compute(scene.path, scene.given), np.arange(90) % 3 == 0
    pictures.data_map(measures, wrong, "unused.png", "title", "noisy")
    monkeypatch.setattr(pictures, "MOST_POINTS", 40)
    pictures.data_map(measures, wrong, "unused.png", "title", "noisy")
    pictures.data_map(measures, None, "unused.png", "title")
    whole, some, unknown = drawn
    points = np.concatenate([cloud.get_offsets() for cloud in whole.axes[0].collections])
    there = ~np.isnan(measures["confidence"])
    expected = np.stack([measures["variability"], measures["confidence"]], 1)[there]
    np.testing.assert_allclose(np.sort(points, axis=0), np.sort(expected, axis=0))
    counted = [set(re.findall(r"\((\d+)\)", " ".join(texts(fig)))) for fig in drawn]
    assert counted == [{"54", "26"}, {"54", "26"}, {"80"}]
    assert sum(len(cloud.get_offsets()) for cloud in some.axes[0].collections) == 40
    (said,) = set(texts(some)) - set(texts(whole))
    assert re.findall(r"\d+", said) == ["40", "80"]


def test_rank_correlations_are_scipys():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(4, 60))
    table[1] = np.round(table[0] + table[1])  # ties
    table[2, :7] = np.inf
    table[3] = 2
    expected = scipy.stats.spearmanr(table[:3], axis=1).statistic
    found = pictures.spearman(table)
    np.testing.assert_allclose(found[:3, :3], expected)
    assert np.isnan(found[3]).all() and np.isnan(found[:, 3]).all()  # a constant has no ranks


def test_measures_are_compared_where_all_are_known(drawn, monkeypatch):
    scene = random_scene(num_samples=40)
    scene.path[:5] = 0
    measures = compute(scene.path, scene.given, np.full((40, 4), 0.25) + np.eye(4)[np.arange(40) % 4] / 9)
    measures["detour"][7] = np.inf
    pictures.measures_against_each_other(measures, np.arange(40) < 20, "unused.png", "title")
    assert any("35" in text.split() for text in texts(drawn[0]))
    rho = scipy.stats.spearmanr(measures["integral_difficulty"][5:], measures["base_difficulty"][5:]).statistic
    panel = next(ax for ax in drawn[0].axes if ax.get_title().endswith(f" {rho:.2f}"))
    points = np.concatenate([cloud.get_offsets() for cloud in panel.collections])  # those that are wrong last
    order = np.r_[20:40, 5:20]
    np.testing.assert_allclose(points[:, 0], measures["integral_difficulty"][order])
    np.testing.assert_allclose(points[:, 1], measures["base_difficulty"][order])
    assert all(word in panel.get_xlabel() for word in ("integral", "easy"))  # which measure, and what is large
    assert all(word in panel.get_ylabel() for word in ("base", "hard"))
    del measures["base_difficulty"]
    monkeypatch.setattr(pictures, "MOST_POINTS", 40)
    pictures.measures_against_each_other(measures, None, "unused.png", "title")
    panels = [{ax.get_ylabel() for ax in fig.axes if ax.get_xlabel() == panel.get_xlabel()} for fig in drawn]
    assert panels[0] != panels[1] and panel.get_ylabel() in panels[0] - panels[1]  # another measure in its place
    said = [{text for text in texts(fig) if "10" in text.split()} for fig in drawn]
    assert not said[0] and said[1]  # points that are drawn


def test_the_smallest_distance_is_marked_with_its_step_and_value(drawn):
    scene = random_scene()
    distances = {"all samples": distance_to(scene.path, np.full((12, 4), 0.25)), "few": None}
    distances["few"] = {name: curve[:4] for name, curve in distances["all samples"].items()}
    pictures.distance_over_training(distances, "unused.png", "title", "update", 10, {"few": 0.5})
    curve = distances["all samples"]["filtered_kl"]
    smallest = {f"{curve.min():.3g}", f"{10 * curve.argmin()}"}
    assert any(smallest <= set(text.split()) for text in texts(drawn[0]))
    assert any(text.endswith(" 0.5") for text in texts(drawn[0]))
    marks = [line for line in drawn[0].axes[2].lines if line.get_marker() == "o"]
    assert [10 * curve.argmin(), curve.min()] in [np.ravel(mark.get_data()).tolist() for mark in marks]
    assert len(drawn[0].axes[0].lines) == 4 and len(drawn[0].axes[1].lines) == 5  # the label's distance, where known


def test_up_to_32_images_grey_or_in_colour(drawn):
    shapes = [(8, 8), (8, 8, 1), (5, 9, 3)] * 11
    images = [np.full(shape, i, np.uint8) for i, shape in enumerate(shapes)]
    pictures.sample_images(images, [f"given {i}\n→ other" for i in range(33)], "unused.png", "title")
    shown = [ax for ax in drawn[0].axes if ax.images]
    assert len(shown) == 32 and shown[31].get_title() == "given 31\n→ other"
    assert all(ax.images[0].get_array().flat[0] == i for i, ax in enumerate(shown))


# ------------------------------------------------------------------------------------------------ animations


def gif(path):
    """(durations in ms, frames as arrays, whether it loops for ever) of a GIF."""
    with Image.open(path) as image:
        frames = []
        for i in range(image.n_frames):
            image.seek(i)
            frames.append((image.info["duration"], np.asarray(image.convert("RGB"))))
        return [ms for ms, _ in frames], [frame for _, frame in frames], image.info.get("loop") == 0


@pytest.mark.parametrize("num_steps", [1, 7, 90])
@pytest.mark.parametrize("kind", ["distance", "zigzag"])
def test_animations_loop_have_few_frames_and_hold_the_last(kind, num_steps, tmp_path):
    scene, out = random_scene(30, num_steps, clean=np.arange(30) % 4), tmp_path / "a.gif"
    if kind == "distance":
        distance_against_difficulty(scene, out, np.arange(30), one_hot(scene.clean), scene.clean != scene.given)
    else:
        zigzag(scene, [0, 1], out, "title", seconds_per_step=0.1)
    durations, frames, loops = gif(out)
    assert len(frames) == min(num_steps, animations.MOST_FRAMES) and out.stat().st_size < 1e6
    if num_steps > 1:
        assert loops and durations[-1] == 2000 and max(durations[:-1]) < 1000
        assert (frames[0] != frames[-1]).mean() > 0.001
        assert sum(durations[:-1]) == pytest.approx(100 * (num_steps - 1), rel=0.1) or kind == "distance"
    colors = np.unique(frames[-1].reshape(-1, 3), axis=0)
    assert len(colors) <= 64
    dots = to_rgb(plots.START) if kind == "zigzag" else 0.4 + 0.6 * np.array(to_rgb(plots.RIGHT))  # drawn thinly
    for wanted in ((1, 1, 1), dots):
        assert np.abs(colors - 255 * np.array(wanted)).max(1).min() < 40
    assert [file.name for file in tmp_path.iterdir()] == ["a.gif"]


@pytest.mark.parametrize("num_classes", [2, 5])
def test_a_frame_is_what_drawing_everything_anew_would_show(num_classes, tmp_path, monkeypatch):
    figures, frames = [], []

    def kept(image, *colors, **settings):
        frames.append(np.asarray(image).astype(int))
        return image

    monkeypatch.setattr(animations, "Figure", lambda **style: figures.append(Figure(**style)) or figures[0])
    monkeypatch.setattr(Image.Image, "quantize", kept)
    scene = random_scene(num_classes=num_classes, clean=np.arange(12) % 2)
    zigzag(scene, [0, 1, 2], tmp_path / "a.gif", "title")
    for artist in figures[0].findobj():
        artist.set_animated(False)
    figures[0].canvas.draw()
    whole = np.asarray(figures[0].canvas.buffer_rgba())[..., :3].astype(int)
    differ = [(np.abs(whole - frame).max(2) > 8).sum() for frame in frames]
    assert differ[-1] < 20 < differ[-2]  # smooth edges round in another order


def test_every_frame_says_its_step(tmp_path):
    scene = random_scene(num_steps=3)
    scene.path[:] = scene.path[:, :1]  # nothing but the step changes
    zigzag(scene, [0], tmp_path / "a.gif", "title")
    first, second, third = gif(tmp_path / "a.gif")[1]
    assert (first != second).any() and (second != third).any()


def film(monkeypatch):
    """What an animation hands over to be filmed."""
    handed = {}
    names = ("fig", "moving", "show", "num_steps", "seconds", "out")
    monkeypatch.setattr(animations, "_film", lambda *given: handed.update(zip(names, given, strict=True)))
    return handed


def test_points_stand_at_difficulty_and_distance(monkeypatch):
    scene = random_scene(num_samples=30)
    scene.path[4], scene.path[5, 6] = 0, 0  # never visited; not at step 6
    reference = np.random.default_rng(3).dirichlet(np.ones(4), size=30)
    difficulty = np.linspace(1, 2, 30)
    difficulty[[4, 9, 10]] = np.nan, np.inf, -np.inf
    handed = film(monkeypatch)
    distance_against_difficulty(scene, "unused.gif", difficulty, reference, np.arange(30) < 12)
    handed["show"](6)
    others, wrong, median, heading = handed["moving"]
    rows = [i for i in range(30) if i not in (4, 9, 10)]
    expected = np.linalg.norm(scene.path[:, 6].astype(np.float32) - reference, axis=1)
    expected[5] = np.nan
    for cloud, part in ((wrong, [i for i in rows if i < 12]), (others, [i for i in rows if i >= 12])):
        points = np.ma.filled(cloud.get_offsets(), np.nan)
        np.testing.assert_allclose(points, np.stack([difficulty, expected], 1)[part], rtol=1e-5)
    assert heading.get_text().endswith(" 6") and np.isfinite(median.get_ydata()).all()
    assert min(expected[rows][:3]) <= median.get_ydata()[0] <= np.nanmax(expected[rows][:3])


def test_a_tied_difficulty_has_one_median(monkeypatch):
    scene = random_scene(num_samples=30)
    handed = film(monkeypatch)
    distance_against_difficulty(scene, "unused.gif", np.repeat([0.0, 1.0], [25, 5]), one_hot(scene.given))
    handed["show"](2)
    cloud, median, _ = handed["moving"]
    expected = np.linalg.norm(scene.path[:, 2].astype(np.float32) - one_hot(scene.given), axis=1)
    np.testing.assert_allclose(cloud.get_offsets()[:, 1], expected, rtol=1e-5)
    np.testing.assert_allclose(median.get_data(), [[0, 1], [np.median(expected[:25]), np.median(expected[25:])]])


def test_many_samples_are_drawn_in_part_and_it_is_said(monkeypatch):
    scene = random_scene(num_samples=2500, num_steps=3)
    handed = film(monkeypatch)
    distance_against_difficulty(scene, "unused.gif", np.arange(2500), one_hot(scene.given))
    handed["show"](0)
    assert re.findall(r"\d[\d,]*\d|\d", handed["moving"][-1].get_text()) == ["0", "2,000", "2,500"]
    assert len(handed["moving"][0].get_offsets()) == 2000
    with pytest.raises(ValueError):
        distance_against_difficulty(scene, "unused.gif", np.full(2500, np.nan), one_hot(scene.given))


# ------------------------------------------------------------------------------------------- reading, writing


class Reads:
    """A path that counts the values read of it."""

    def __init__(self, path):
        self.path, self.shape, self.count = path, path.shape, 0

    def __getitem__(self, key):
        values = self.path[key]
        self.count += values.size
        return values


def test_only_what_is_drawn_is_read_of_a_memory_map(tmp_path):
    scene = random_scene(num_samples=4000, num_steps=12, num_classes=3)
    np.save(tmp_path / "path.npy", scene.path)
    scene.path = Reads(np.load(tmp_path / "path.npy", mmap_mode="r"))
    pictures.simplex_paths(scene, {"a": [3, 3999]}, tmp_path / "a.png", "title")
    zigzag(scene, [7], tmp_path / "a.gif", "title")
    assert scene.path.count == 3 * 12 * 3
    distance_against_difficulty(scene, tmp_path / "b.gif", np.arange(4000), one_hot(scene.given, 3))
    assert scene.path.count <= 3 * 12 * 3 + 13 * 2000 * 3  # a step is drawn once more, to lay the figure out


def test_no_name_is_taken_for_mathematics(tmp_path):
    scene = random_scene(num_steps=3, num_classes=10, class_names=HOSTILE, step_name="$\\epoch{")
    scene.given, scene.clean = np.arange(12)[::-1] % 10, np.arange(12) % 10
    measures = compute(scene.path, scene.given) | {f"{name}$\\frac{{": np.arange(12) for name in ("a", "_b")}
    groups, wrong, out = {"_$a^{": [0, 1, 2], "$\\b": [3, 4]}, np.arange(12) < 5, tmp_path / "a.png"
    title = "_$\\frac{\n$$$ title"
    pictures.simplex_paths(scene, groups, out, title)
    pictures.probabilities_over_time(scene, groups, out, title)
    pictures.measures_against_each_other(measures, wrong, out, title)
    pictures.data_map(compute(scene.path, scene.given), wrong, out, title, title)
    distances = {title: distance_to(scene.path, np.full((12, 10), 0.1))}
    pictures.distance_over_training(distances, out, title, title)
    pictures.sample_images([np.zeros((3, 3), np.uint8)], [title], out, title)
    distance_against_difficulty(scene, tmp_path / "a.gif", np.arange(12), one_hot(scene.clean, 10), wrong, title, title)
    zigzag(scene, [5, 6, 7, 8], tmp_path / "a.gif", title)


def test_a_name_is_shown_as_it_is():
    ax = Figure().subplots()
    text = ax.text(0, 0, plots.plain("_a$b $c$"))
    assert text._preprocess_math(text.get_text()) == ("_a$b $c$", False)
    assert plots.plain("a\n b" + "c" * 99, 6) == "a bcc…"


def test_nothing_is_written_when_drawing_fails(tmp_path, monkeypatch):
    scene, out = random_scene(), tmp_path / "a.png"
    out.write_bytes(b"before")

    def fails(fig, file, **settings):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fails)
    with pytest.raises(OSError):
        pictures.simplex_paths(scene, {"a": [1]}, out, "title")
    monkeypatch.setattr(simplex.Trail, "show", lambda trail, time: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        zigzag(scene, [1], tmp_path / "a.gif", "title")
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"] and out.read_bytes() == b"before"


def test_letters_that_the_font_lacks_cause_no_warning(tmp_path):
    code = (
        "import sys; from common.plots import figure, save; fig, ax = figure(); "
        "ax.set_title('ant 猫 개 \U0001f41c \u0378'); save(fig, sys.argv[1])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.png")]
    repository = Path(pictures.__file__).parent.parent
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
