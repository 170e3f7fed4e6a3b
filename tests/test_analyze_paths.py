"""analyze_paths.py: what it writes of a run, of anybody's arrays, and what it says of ones that do not fit."""

import csv
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

import analyze_paths
import main_gen_path
from common import plots
from common.errors import BadInput
from common.files import read_json, write_json
from data.datasets import fingerprint
from paths.analysis import Analysis
from paths.label_errors import find_label_errors
from paths.recorder import PathRecorder
from runs.predicted_split import open_split
from runs.recorded_run import open_run

RUN = "--dataset digits --net smallcnn --epochs 6 --batch_size 128 --augment none --device cpu --amp off".split()
FILES = """
    samples.csv suspects.csv steps.csv summary.txt report.html player.html simplex.png probabilities.png data_map.png
    measures.png distance.png suspects.png distance.gif
""".split()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """{name: folder}: a noisy run, of some of the samples, and a clean one."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        some = ["--train_size", "600", "--seed", "1"]
        noisy = main_gen_path.main([*RUN, *some, "--run_name", "noisy", "--ny_ratio", "0.4"]).absolute()
        clean = main_gen_path.main([*RUN, *some, "--run_name", "clean"]).absolute()
    return {"noisy": noisy, "clean": clean}


@pytest.fixture
def tables_only(monkeypatch):
    """Leaves the pictures out, which take most of the time."""
    monkeypatch.setattr(analyze_paths, "draw", lambda *all_of_them: None)


@pytest.fixture(scope="module")
def analysis(runs):
    return analyze_paths.main(
        [str(runs["noisy"]), "--idx", sample(runs), "--compare", str(runs["clean"]), "--export", "cleanlab"]
    )


def sample(runs):
    with np.load(runs["noisy"] / "labels.npz") as labels:
        return str(labels["idx"][0])


def rows(file):
    with open(file, newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f))


def judged(summary):
    """The numbers in the line that holds the suspects against clean labels; None where nobody knows them."""
    lines = [re.findall(r"[\d.,]*\d%?", line) for line in summary.splitlines() if re.search(r"\d%", line)]
    return lines[0] if lines else None


def test_everything_is_written_beside_the_run(analysis, runs):
    assert analysis == runs["noisy"] / "analysis"
    extra = ["chosen_simplex.png", "chosen_probabilities.png", "compare_simplex.png", "compare_probabilities.png"]
    extra += ["zigzag_fast.gif"]
    assert sorted(p.name for p in analysis.iterdir()) == sorted([*FILES, *extra, "cleanlab"])
    assert all(p.stat().st_size < 1_000_000 for p in analysis.glob("*.gif"))


def test_suspects_are_those_of_find_label_errors_sorted_and_counted(analysis, runs):
    path = np.load(runs["noisy"] / "PATH_TRAIN_COARSE.npy")
    with np.load(runs["noisy"] / "labels.npz") as labels:
        given, trained_on = labels["ny"], labels["idx"]
    score, suggestion, num_errors = find_label_errors(path, given)
    found = rows(analysis / "suspects.csv")
    idx = np.array([int(row["idx"]) for row in found])
    assert sorted(idx) == trained_on.tolist()  # every visited row, and no other
    scores = np.array([float(row["score"]) for row in found])
    np.testing.assert_allclose(scores, score[idx], rtol=1e-4)
    assert (np.diff(scores) <= 0).all()
    assert [row["suspect"] for row in found] == ["1"] * num_errors + ["0"] * (len(found) - num_errors)
    for row in found:
        assert int(row["given_label"]) == given[int(row["idx"])]
        assert row["suggested_name"] == str(suggestion[int(row["idx"])])
        assert {row["suggested_name"], row["given_name"]} <= set(row["reason"].split())


def test_samples_csv_holds_visited_rows_and_no_nan(analysis):
    found = rows(analysis / "samples.csv")
    assert len(found) == 600 and {"clean_label", "confidence", "el2n_at_step", "rival_mass"} <= set(found[0])
    assert not any(value in ("nan", "") for row in found for value in row.values())


def test_steps_csv_shows_mislabelled_samples_nearer_the_truth_than_their_labels(analysis):
    found = rows(analysis / "steps.csv")
    assert [row["epoch"] for row in found] == list("012345")
    nearest = min(float(row["raw_l2_mislabelled"]) for row in found)
    assert nearest < np.sqrt(2)
    assert all(0 <= float(row["filtered_accuracy_clean"]) <= 1 for row in found)


def test_the_summary_says_how_many_suspects_are_right(analysis, runs):
    found = rows(analysis / "suspects.csv")
    with np.load(runs["noisy"] / "labels.npz") as labels:
        wrong = labels["y"] != labels["ny"]
    suspects = [int(row["idx"]) for row in found if row["suspect"] == "1"]
    all_wrong, told, share, _ = judged((analysis / "summary.txt").read_text())
    assert int(all_wrong) == wrong[[int(row["idx"]) for row in found]].sum()
    assert int(told) == len(suspects) and share == f"{wrong[suspects].mean():.1%}"


def test_it_tells_on_standard_error_what_it_does_and_at_the_end_where_the_page_is(runs, workplace, tables_only, capsys):
    out = analyze_paths.main([str(runs["clean"]), "--out", "a"])
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == str(out) and str(out / "report.html") in said.out
    commands = re.findall(r"python (\S+)", said.out)
    assert commands[0] == "analyze_paths.py" and len(commands) == 2  # digits lie nowhere to be corrected
    assert len(said.err.splitlines()) >= 3


def marks_of(out, file, given, said):
    """marks.csv as the page exports it; said: {idx: (mark, label)}."""
    page = (out / "report.html").read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])
    original = data["original"]
    lines = ["idx,file,original_label,given_label,label,label_name,mark,audit"]
    for i, k in enumerate(given):
        mark, label = said.get(i, ("", k))
        name = data["file"][i] if data["file"] else ""
        lines.append(f"{i},{name},{original[i]},{k},{label},{label},{mark},{data['audit'].get(str(i), '')}")
    Path(file).write_text("\n".join(lines) + "\n")
    return data


def test_marks_tell_how_many_labels_are_wrong_and_how_far_the_ranking_is_right(runs, workplace, tables_only, capsys):
    """The person looks at all cards of the audit and at the first 30 of the ranking, and is always right."""
    with np.load(runs["noisy"] / "labels.npz") as labels:
        y, ny = labels["y"], labels["ny"]
    right = {i: ("right" if y[i] == ny[i] else "wrong", y[i]) for i in range(len(y))}
    out = analyze_paths.main([str(runs["noisy"]), "--out", "a", "--audit", "100"])
    first = [int(row["idx"]) for row in rows(out / "suspects.csv")[:30]]
    data = marks_of(out, "none.csv", ny, {})
    assert len(data["audit"]) == 100 and not (out / "audit.csv").exists()
    said = {i: right[i] for i in [*first, *map(int, data["audit"])]}
    marks_of(out, "marks.csv", ny, said)
    capsys.readouterr()
    out = analyze_paths.main([str(runs["noisy"]), "--out", "a", "--audit", "100", "--marks", "marks.csv"])
    found = Analysis(with_marks(runs["noisy"], "marks.csv"), num_cards=100).estimate
    followed = [int(row["idx"]) for row in rows(out / "suspects.csv")]
    wrong = (y != ny)[followed].sum()
    assert found.wrong[0] <= wrong <= found.wrong[2] and found.depth >= 30
    assert re.search(r"\b100\b.*\b100\b", capsys.readouterr().out)  # looked at, of as many
    assert f"{round(found.wrong[0]):,} to {round(found.wrong[2]):,}" in (out / "report.html").read_text()
    by_depth = rows(out / "audit.csv")
    assert [int(row["depth"]) for row in by_depth] == sorted({12, 30, 60, 120, 240, 600, found.depth})
    assert float(by_depth[-1]["recall"]) == 1
    # of the last stratum nobody looked at a card: an interval, and nothing more
    again = [str(runs["noisy"]), "--out", "a", "--marks", "few.csv"]
    marks_of(out, "few.csv", ny, {i: right[i] for i in first})
    last = rows(analyze_paths.main(again) / "audit.csv")[-1]
    assert last["precision"] == "" and float(last["precision_low"]) < wrong / 600 < float(last["precision_high"])
    # no card of the audit is among the marks: what to look at for a number
    marks_of(out, "few.csv", ny, {next(i for i in range(600) if str(i) not in data["audit"]): ("right", 0)})
    capsys.readouterr()
    out = analyze_paths.main(again)
    assert not (out / "audit.csv").exists() and "audit" in (out / "summary.txt").read_text()
    # another audit than that of this ranking says nothing
    lines = Path("marks.csv").read_text().splitlines()
    Path("other.csv").write_text("\n".join([lines[0], *(line[: line.rindex(",")] + ",1" for line in lines[1:])]) + "\n")
    analyze_paths.main([str(runs["noisy"]), "--out", "a", "--marks", "other.csv"])
    assert not (workplace / "a" / "audit.csv").exists()


def with_marks(run, marks):
    recorded = open_run(run)
    recorded.take_marks(marks)
    return recorded


def test_labels_of_the_test_split_are_ranked_by_the_runs_predictions(runs, workplace, tables_only, capsys):
    out = analyze_paths.main([str(runs["noisy"]), "--split", "test", "--out", "a"])
    assert len(rows(out / "suspects.csv")) == 360
    scores = np.array([float(row["score"]) for row in rows(out / "suspects.csv")])
    accuracy = float(rows(runs["noisy"] / "metrics.csv")[-1]["test_acc"])
    assert (scores < 0).mean() == pytest.approx(accuracy, abs=0.01)
    given = load_digits().target  # whichever: the export has those of the page
    page = (out / "report.html").read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])
    given = data["given"]
    marks_of(out, "marks.csv", given, {})
    assert analyze_paths.main([str(runs["noisy"]), "--split", "test", "--out", "a", "--marks", "marks.csv"])
    with pytest.raises(BadInput, match="--marks marks.csv"):
        analyze_paths.main([str(runs["noisy"]), "--marks", "marks.csv"])
    with pytest.raises(BadInput, match="--split valid"):
        analyze_paths.main([str(runs["noisy"]), "--split", "valid"])


@pytest.mark.parametrize("layout", ["train test val", "train dev", ""])
def test_files_of_a_split_are_named_and_found_as_they_lie_in_the_folder(workplace, layout):
    rng = np.random.default_rng(0)
    for folder in (f"{split}/{name}" for split in layout.split() or [""] for name in "ab"):
        os.makedirs(f"set/{folder}")
        for i in range(8):
            Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(f"set/{folder}/{i}.png")
    flags = "--dataset folder --data_dir set --image_size 8 --epochs 1 --run_name r"
    flags += " --valid_size " + ("0.1" if "val" in layout else "0")
    run = main_gen_path.main([*RUN, *flags.split(), "--batch_size", "8"])
    for split in ("test", "valid") if "val" in layout else ("test",):
        recorded = open_split(run, split)
        assert recorded.files and all((recorded.files_in / file).is_file() for file in recorded.files)


@pytest.mark.parametrize("spec", ["texts.txt", "texts.csv:words", "texts.csv"])
def test_texts_of_samples_are_on_the_page(loose, workplace, tables_only, spec):
    n = len(np.load("labels.npy"))
    Path("texts.txt").write_text("".join(f"words {i}\u2028\n" for i in range(n)), encoding="utf-8")
    Path("texts.csv").write_text("age,words\n" + "".join(f"{i},words {i}\n" for i in range(n)))
    page = (analyze_paths.main([*loose, "--texts", spec]) / "report.html").read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])
    of_spec = {
        "texts.txt": "words {0}\u2028",
        "texts.csv:words": "words {0}",
        "texts.csv": "age: {0}\nwords: words {0}",
    }
    expected = of_spec[spec]
    assert data["text"] == [expected.format(i) for i in data["idx"]]
    Path("texts.txt").write_text("one\n")
    with pytest.raises(BadInput, match="--texts texts.txt"):
        analyze_paths.main([*loose, "--texts", "texts.txt"])
    with pytest.raises(BadInput, match="--texts texts.csv"):
        analyze_paths.main([*loose, "--texts", "texts.csv:no"])


def test_loose_paths_with_clean_labels_are_judged_as_runs_are(loose, workplace, tables_only):
    np.save("clean.npy", np.load("labels.npy"))
    given = np.load("labels.npy").copy()
    given[:3] = (given[:3] + 1) % 10
    np.save("given.npy", given)
    flags = [flag.replace("labels.npy", "given.npy") for flag in loose]
    out = analyze_paths.main([*flags, "--clean_labels", "clean.npy"])
    assert judged((out / "summary.txt").read_text())[0] == "3"
    assert "clean_label" in rows(out / "samples.csv")[0]


def test_columns_in_another_order_than_the_labels_are_told(loose, workplace):
    np.save("path.npy", np.roll(np.load("path.npy"), 2, axis=2))
    Path("path.json").unlink(missing_ok=True)
    with pytest.raises(BadInput, match="path.npy"):
        analyze_paths.main(loose)
    assert not (workplace / "out").exists()


def test_an_analysis_is_written_anew_and_a_foreign_folder_left_alone(analysis, runs, workplace, tables_only):
    copy = workplace / "run"
    shutil.copytree(runs["noisy"], copy)
    (copy / "analysis" / "chosen_simplex.png").write_text("from before")
    (copy / "analysis" / "marks.csv").write_text("hours of work")
    analyze_paths.main([str(copy)])
    assert not (copy / "analysis" / "chosen_simplex.png").exists()
    assert (copy / "analysis" / "marks.csv").read_text() == "hours of work"
    assert [p.name for p in copy.iterdir() if p.name.startswith("analysis")] == ["analysis"]
    (workplace / "mine").mkdir()
    (workplace / "mine" / "summary.txt").write_text("dear")
    with pytest.raises(BadInput, match="--out"):
        analyze_paths.main([str(copy), "--out", str(workplace / "mine")])
    assert (workplace / "mine" / "summary.txt").exists()


def test_of_a_clean_run_top_suspects_stand_for_mislabelled_samples(runs, workplace):
    from paths.analysis import Analysis
    from runs.recorded_run import open_run

    found = Analysis(open_run(runs["clean"]))
    assert found.recorded.clean is None
    assert list(found.groups().values())[-1] == found.order[:3].tolist()
    assert judged(found.summary()) is None


def test_an_unfinished_run_is_read_up_to_its_last_complete_step(runs, workplace, capsys, tables_only):
    copy = workplace / "run"
    shutil.copytree(runs["noisy"], copy, ignore=shutil.ignore_patterns("analysis"))
    sidecar = read_json(copy / "PATH_TRAIN_COARSE.json")
    sidecar["complete"] = {step: crc for step, crc in sidecar["complete"].items() if int(step) < 4}
    del sidecar["crc32"]  # of the whole one
    write_json(copy / "PATH_TRAIN_COARSE.json", sidecar)
    out = analyze_paths.main([str(copy)])
    assert re.search(r"\b4\b.*\b6\b", capsys.readouterr().err)
    assert len(rows(out / "steps.csv")) == 4


def test_a_damaged_step_is_named(runs, workplace):
    copy = workplace / "run"
    shutil.copytree(runs["noisy"], copy, ignore=shutil.ignore_patterns("analysis"))
    path = np.load(copy / "PATH_TRAIN_COARSE.npy", mmap_mode="r+")
    path[:, 3] = 0.1
    path.flush()
    with pytest.raises(BadInput, match=r"PATH_TRAIN_COARSE\.npy.*\b3\b"):
        analyze_paths.main([str(copy)])
    assert not (copy / "analysis").exists()


def test_without_its_images_a_run_is_analysed_all_the_same(runs, workplace, capsys):
    copy = workplace / "run"
    shutil.copytree(runs["noisy"], copy, ignore=shutil.ignore_patterns("analysis"))
    settings = read_json(copy / "args.json")
    write_json(copy / "args.json", {**settings, "dataset": "npz", "data_dir": "moved_away.npz"})
    (copy / "checksums.json").unlink()
    out = analyze_paths.main([str(copy)])
    assert "--data_dir moved_away.npz" in capsys.readouterr().err
    assert (out / "report.html").exists() and not (out / "suspects.png").exists()


def test_exports_are_what_other_tools_read(runs, workplace, tables_only):
    out = analyze_paths.main([str(runs["clean"]), "--out", "a", "--export", "cleanlab"]) / "cleanlab"
    probs, labels, idx = (np.load(out / f"{name}.npy") for name in ("pred_probs", "labels", "idx"))
    path = np.load(runs["clean"] / "PATH_TRAIN_COARSE.npy").astype(np.float64)
    np.testing.assert_allclose(probs, path[idx].mean(1), atol=2e-3)
    np.testing.assert_allclose(probs.sum(1), 1)
    assert len(labels) == 600
    out = analyze_paths.main([str(runs["clean"]), "--out", "a", "--export", "cartography"])
    line = json.loads((out / "cartography/training_dynamics/dynamics_epoch_5.jsonl").read_text().splitlines()[0])
    logits = np.array(line["logits_epoch_5"])
    np.testing.assert_allclose(np.exp(logits), path[line["guid"], 5], atol=2e-3)
    out = analyze_paths.main([str(runs["clean"]), "--out", "a", "--export", "spotlight"])
    assert {"idx", "given", "suggested", "score", "confidence"} <= set(rows(out / "spotlight/spotlight.csv")[0])


def test_names_from_outside_act_nowhere_and_crash_nothing(workplace):
    """A folder with names that are no UTF-8, formulas or markup: figures, tables and page are made all the same."""
    rng, classes = np.random.default_rng(0), [b"=cmd()", b"caf\xe9", b"'=x", b"$\\frac{$<b>"]
    for folder in (os.path.join(os.fsencode(split), name) for split in ("set/train", "set/test") for name in classes):
        os.makedirs(folder)
        for i in range(6):
            pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(os.fsdecode(os.path.join(folder, b"=\xff%d.png" % i)))
    flags = "--dataset folder --data_dir set --image_size 8 --valid_size 0 --ny_ratio 0.3 --run_name".split()
    run = main_gen_path.main([*RUN, *flags, os.fsdecode(b"r\xff"), "--epochs", "2", "--batch_size", "12"])
    out = analyze_paths.main([str(run), "--export", "spotlight"])
    assert {file for file in FILES if not (out / file).is_file()} == set()
    text = (out / "suspects.csv").read_bytes()
    assert b",'=cmd()," in text and b",''=x," in text and b"," + rb"caf\udce9" + b"," in text
    assert b",train/caf\xe9/=\xff0.png," in text
    found = (out / "spotlight/spotlight.csv").read_bytes()
    assert b",'=cmd()," in found
    assert b",train/caf\xe9/=\xff0.png," in found
    assert rb"r\udcff" in (out / "summary.txt").read_bytes()
    assert "<b>" not in (out / "report.html").read_text()


# ------------------------------------------------------------------------------------ anybody's arrays


@pytest.fixture
def loose(workplace):
    """Files of somebody else's loop: a path without a .json, in C order and float64, with odd class names."""
    rng = np.random.default_rng(0)
    digits = load_digits()
    labels = digits.target[:120].copy()
    logits = rng.normal(size=(120, 9, 10)) + 5 * np.eye(10)[labels][:, None]
    labels[:12] = (labels[:12] + 1) % 10
    path = np.exp(logits)
    np.save("path.npy", path / path.sum(2, keepdims=True))
    np.save("labels.npy", labels)
    np.save("images.npy", (digits.images[:120] * 15).astype(np.uint8))
    names = ["=cmd()", "<b>one</b>", "$x_2$", *(f"class {k}" for k in range(3, 10))]
    (workplace / "names.txt").write_text("\n".join(names) + "\n")
    return "path.npy --labels labels.npy --images images.npy --class_names names.txt --out out".split()


@pytest.mark.parametrize("dtype, order", [("float64", "C"), ("float16", "F")])
def test_anybodys_array_is_analysed_with_a_line_of_warning(loose, workplace, capsys, dtype, order):
    path = np.load("path.npy")
    np.save("path.npy", np.array(path, dtype=dtype, order=order))
    out = analyze_paths.main(loose)
    assert capsys.readouterr().err.count("path.npy: ") == 1
    assert sorted(p.name for p in out.iterdir()) == sorted(FILES)
    found = rows(out / "suspects.csv")
    assert {int(row["idx"]) for row in found[:12]} == set(range(12))
    assert all(row["file"] == "" for row in found)
    assert {row["given_name"] for row in found} >= {"'=cmd()", "<b>one</b>"}  # no formula in a spreadsheet
    assert "<b>one</b>" not in (out / "report.html").read_text()


def test_with_true_distributions_distances_are_to_them(loose, workplace, tables_only):
    np.save("p.npy", np.full((120, 10), 0.1, np.float32))
    out = analyze_paths.main([*loose, "--true_probs", "p.npy"])
    path = np.load("path.npy")
    found = rows(out / "steps.csv")
    expected = np.linalg.norm(path - 0.1, axis=2).mean(0)
    np.testing.assert_allclose([float(row["raw_l2"]) for row in found], expected, rtol=1e-4)
    assert "base_difficulty" in rows(out / "samples.csv")[0]


def test_a_recorder_that_was_fed_logits_later_on_is_found_out(loose, workplace):
    recorder = PathRecorder("logits.npy", 120, 2, 10)
    for step in range(2):
        logits = torch.randn(120, 10)  # the recorder itself looks at its first batch only
        recorder.record(step, np.arange(120), logits if step else logits.softmax(1))
    recorder.close()
    with pytest.raises(BadInput, match="logits.npy"):
        analyze_paths.main(["logits.npy", *loose[1:]])


@pytest.mark.parametrize(
    "change, named",
    [
        (lambda: np.save("path.npy", np.load("path.npy") * 2), "path.npy"),
        (lambda: np.save("path.npy", np.load("path.npy")[..., :7]), "path.npy"),
        (lambda: np.save("path.npy", np.load("path.npy")[0]), "path.npy"),
        (lambda: np.save("labels.npy", np.load("labels.npy")[1:]), "--labels"),
        (lambda: np.save("labels.npy", np.load("labels.npy") + 1), "--labels"),
        (lambda: np.save("images.npy", np.load("images.npy")[1:]), "--images"),
        (lambda: np.save("images.npy", np.zeros((120, 3, 8, 8), np.uint8)), "--images"),
        (lambda: np.save("path.npy", np.ones((120, 4, 1))), "path.npy"),
        (lambda: np.save("path.npy", np.load("path.npy") * np.nan), "path.npy"),
        (lambda: open("names.txt", "w").write("one\n"), "--class_names"),
    ],
)
def test_files_that_do_not_fit_are_named_and_nothing_is_written(loose, workplace, change, named):
    change()
    with pytest.raises(BadInput, match=named):
        analyze_paths.main(loose)
    assert not (workplace / "out").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"ny": np.zeros(3, int)},
        {"y": np.zeros(1437)},
        {"ny": np.full(1437, 10)},
        {"ny": None},
    ],
    ids=range(4),
)
def test_labels_that_are_not_the_runs_are_named(runs, workplace, changes):
    copy = workplace / "run"
    shutil.copytree(runs["noisy"], copy, ignore=shutil.ignore_patterns("analysis"))
    with np.load(copy / "labels.npz") as labels:
        arrays = {**labels, **changes}
    np.savez(copy / "labels.npz", **{name: array for name, array in arrays.items() if array is not None})
    (copy / "checksums.json").unlink()
    with pytest.raises(BadInput, match=r"labels\.npz: "):
        analyze_paths.main([str(copy)])


def test_files_that_could_be_formulas_have_an_apostrophe(loose, workplace, tables_only):
    for i, pixels in enumerate(np.load("images.npy")):
        (workplace / "pictures").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(workplace / f"pictures/={i:03}.png")
    flags = [flag.replace("images.npy", "pictures") for flag in loose]
    out = analyze_paths.main([*flags, "--export", "spotlight"])
    for file, column in ((out / "suspects.csv", "file"), (out / "spotlight/spotlight.csv", "image")):
        assert all(row[column] == f"'={int(row['idx']):03}.png" for row in rows(file))


@pytest.mark.parametrize("complete", [{"7": 0}, {"-1": 0}, {"x": 0}, {"0": 0, "99": 0}])
def test_a_sidecar_that_lists_other_steps_is_named(loose, complete):
    (Path("path.json")).write_text(json.dumps({"complete": complete, "rows": None}))
    with pytest.raises(BadInput, match=r"path\.(npy|json): "):
        analyze_paths.main(loose)


def test_flags_that_do_not_fit_a_run_are_named(runs, workplace):
    for flags, part in (
        (["--labels", "x.npy"], "--labels"),
        (["--idx", "1,99999"], "--idx 99999"),
        (["--compare", "nowhere"], "--compare nowhere"),
        (["--out", "a/b"], "--out a/b"),
        (["--split", "test", "--compare", str(runs["clean"])], "--split test"),
    ):
        with pytest.raises(BadInput, match=part):
            analyze_paths.main([str(runs["noisy"]), *flags])
    with pytest.raises(BadInput, match="--idx x"):
        analyze_paths.main([str(runs["noisy"]), "--idx", "x"])
    for path in (runs["noisy"].parent, runs["noisy"].parent / "run_nosy", runs["noisy"].parents[1]):
        with pytest.raises(BadInput) as found:
            analyze_paths.main([str(path)])
        assert str(found.value).startswith(f"{path}: ")
        assert all(str(run) in str(found.value) for run in runs.values())
    with pytest.raises(BadInput, match="PATH_TRAIN_COARSE.*PATH_ALL_COARSE"):
        folder = workplace / "none"
        shutil.copytree(runs["noisy"], folder, ignore=shutil.ignore_patterns("PATH_*", "analysis"))
        analyze_paths.main([str(folder)])


def test_a_run_on_other_data_is_no_comparison_and_one_of_another_length_is_told(runs, workplace, capsys, tables_only):
    run = ["--dataset", "digits", "--net", "smallcnn", "--train_size", "600", "--seed", "1", "--augment", "none"]
    other = main_gen_path.main([*run, "--epochs", "1", "--run_name", "other"])
    analyze_paths.main([str(runs["noisy"]), "--compare", str(other)])
    said = capsys.readouterr().err
    assert f"--compare {other}" in said

    with np.load(other / "labels.npz") as kept:
        arrays = dict(kept)
    settings = read_json(other / "args.json")
    for name in ("y", "ny"):
        arrays[name] = np.roll(arrays[name], 103)
        settings["resolved"][f"{name}_sha256"] = fingerprint(arrays[name])
    np.savez(other / "labels.npz", **arrays)
    write_json(other / "args.json", settings)
    (other / "checksums.json").unlink()
    with pytest.raises(BadInput, match=f"--compare {other}"):
        analyze_paths.main([str(runs["noisy"]), "--compare", str(other)])


def test_where_nobody_knows_what_is_wrong_pictures_speak_of_suspects(runs, workplace, monkeypatch):
    named = []
    monkeypatch.setattr(plots, "by_wrong", lambda *given, real=plots.by_wrong: named.append(given[2]) or real(*given))
    analyze_paths.main([str(runs["clean"])])
    assert len(set(named)) == 1 and "suspect" in named[0] and len(named) >= 3  # data map, measures, distance.gif


def test_labels_corrected_by_hand_are_not_judged_by_the_old_ones(runs, workplace, tables_only, capsys):
    """Marks of the page, back through --ny_file: the new labels are the better ones."""
    with np.load(runs["noisy"] / "labels.npz") as labels:
        y, ny = labels["y"], labels["ny"]
    lines = [f"{i},{a},{b},{'wrong' if a != b else ''}" for i, (a, b) in enumerate(zip(y, ny, strict=True))]
    (workplace / "marks.csv").write_text("\n".join(["idx,given_label,label,mark", *lines]) + "\n")
    flags = [*RUN, "--train_size", "600", "--seed", "1", "--epochs", "2"]
    run = main_gen_path.main([*flags, "--ny_file", "marks.csv", "--run_name", "corrected"])
    assert f"{(y != ny).mean():.2f}"[:3] in capsys.readouterr().out  # the share of labels that they correct
    out = analyze_paths.main([str(run)])
    assert judged((out / "summary.txt").read_text()) is None
    found = rows(run / "metrics.csv")[-1]
    assert found["train_acc_clean"] == found["train_acc_noisy"]


def test_inputs_inside_a_run_that_is_to_be_replaced_are_refused(runs, workplace):
    copy = workplace / "results/Gen_path/run_again"
    shutil.copytree(runs["noisy"], copy)
    np.save(copy / "labels.npy", np.load(copy / "labels.npz")["ny"])
    with pytest.raises(BadInput, match="--ny_file.*--overwrite"):
        main_gen_path.main([*RUN, "--ny_file", str(copy / "labels.npy"), "--run_name", "again", "--overwrite"])
    assert (copy / "labels.npy").exists()
