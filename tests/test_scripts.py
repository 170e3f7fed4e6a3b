"""The three training scripts end to end on real digits: names, noise, starts, teachers."""

import csv
import re
import shutil
import subprocess
import sys
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch

import main_distill
import main_gen_teacher
import old_cifar_noisy
from common.errors import BadInput, NeedsDownload
from common.files import read_json
from common.hardware import Hardware
from models import build_model
from runs import run_folder
from runs.run_folder import read_args
from runs.teacher import Teacher
from supervision.losses import cross_entropy, distillation_loss
from supervision.table import PredictionTable
from supervision.targets import OneHot, SmoothedLabel, TeacherNetwork, TeacherTable, TrueDistribution
from training import experiment, loop

QUICK_STUDENT = "--net smallcnn --batch_size 50 --epochs 2 --lr 0.05 --device cpu --amp off".split()
DATA = "--dataset digits --train_size 200 --ny_ratio 0.4".split()
REPOSITORY = Path(main_distill.__file__).parent
TEACHER = "smallcnndigits_cosine_n0.4"
KEPT = {f"{name}.{ending}" for name in ("best_acc", "best_loss", "epoch_1") for ending in ("pt", "npy", "json")}
RUN_FILES = {"args.json", "environment.json", "labels.npz", "metrics.csv", "last.pt", "curves.png"} | KEPT
RUN_FILES |= {"checksums.json"}


@pytest.fixture(autouse=True, scope="module")
def no_drawing():
    """curves.png takes longer than a quick run; training/test_run_folder.py has them drawn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_folder, "plot_curves", lambda rows, path: path.touch())
        yield


@pytest.fixture(scope="module")
def lab(quick, tmp_path_factory):
    """A folder in which a teacher was trained, for tests that do not change it."""
    folder = tmp_path_factory.mktemp("lab")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main_gen_teacher.main(quick("--ny_ratio", 0.4, "--seed", 1))
    return folder


@pytest.fixture
def in_lab(lab, monkeypatch):
    monkeypatch.chdir(lab)
    return lab


@pytest.fixture
def teacher_path(lab):
    return lab / "results" / "Gen_teacher" / TEACHER


class Fits:
    """Stands in for fit(): remembers how each training began, what it was given and what it saw."""

    def __init__(self, fit):
        self.fit, self.seen = fit, []

    def __call__(self, state, run, args, hardware, target, valid, test, **options):
        start = {name: value.clone() for name, value in state.model.state_dict().items()}
        order, images, dropout = [], [], torch.get_rng_state()
        seen = {"start": start, "dropout": dropout, "order": order, "images": images, "target": target, "run": run}
        self.seen.append({**seen, **options})

        def watched(x, label, idx, logits):
            order.append(idx.clone())
            images.append(x.clone())
            return target(x, label, idx, logits)

        return self.fit(state, run, args, hardware, watched, valid, test, **options)


@pytest.fixture
def distill(monkeypatch):
    """distill(*flags) -> (folder, how its training began): main_distill on quick settings."""

    def run(*flags):
        fits = Fits(loop.fit)
        monkeypatch.setattr(experiment, "fit", fits)
        folder = main_distill.main([*QUICK_STUDENT, *map(str, flags)])
        return folder, fits.seen[0]

    return run


def weights(path):
    return torch.load(path, weights_only=True)


def same(state, other):
    return set(state) == set(other) and all(torch.equal(value, other[name]) for name, value in state.items())


def labels(folder):
    with np.load(folder / "labels.npz", allow_pickle=False) as file:
        return {name: file[name] for name in file}


def read_csv(path):
    with open(path, newline="") as f:
        return list(csv.DictReader(f))


def names(folder):
    return {p.name for p in Path(folder).iterdir()}


# --------------------------------------------------------------------------------------- published flags

PUBLISHED = {
    main_gen_teacher: dict(
        lr=0.1, scheduler="cosine", epochs=200, net="resnet18", dataset="cifar10", ny_ratio=0, batch_size=250,
        seed=10086, proj_name="Gen_teacher", smoothing=0.05, filt_tau=1, momentum=0.9, weight_decay=5e-4,
        save_epochs=[4, 50, 78, 118, 158, 178, 199],
    ),
    main_distill: dict(
        lr=0.1, scheduler="cosine", epochs=200, net="resnet18", dataset="cifar10", ny_ratio=0, batch_size=256,
        seed=10086, smoothing=0.05, tau=1, teach_path="resnet18cifar100_cosine", teach_type="net",
    ),
    old_cifar_noisy: dict(
        lr=0.1, batch_size=128, seed=10086, smoothing=0.05, temp=1, epochs=100, net="resnet18", dataset="cifar100",
    ),
}  # fmt: skip


@pytest.mark.parametrize("script", PUBLISHED, ids=lambda s: s.__name__)
def test_flags_have_the_published_defaults(script):
    args = script.make_parser().parse_args([])
    assert {name: getattr(args, name) for name in PUBLISHED[script]} == PUBLISHED[script]


@pytest.mark.parametrize("script", PUBLISHED, ids=lambda s: s.__name__)
def test_help_is_printed_and_says_what_every_flag_is_for(script, capsys):
    parser = script.make_parser()
    assert all(action.help for action in parser._actions)
    with pytest.raises(SystemExit) as found:
        parser.parse_args(["--help"])
    assert found.value.code == 0 and "--ny_ratio" in capsys.readouterr().out


def test_a_students_default_teacher_is_what_a_teacher_on_cifar100_writes(workplace, capsys):
    main_gen_teacher.main(["--dataset", "cifar100", "--device", "cpu", "--check"])
    default = main_distill.make_parser().get_default("teach_path")
    assert f"results/Gen_teacher/{default}\n" in capsys.readouterr().out


def test_a_script_run_as_a_program_ends_with_its_folder(quick, workplace):
    command = [sys.executable, REPOSITORY / "main_gen_teacher.py", *quick("--epochs", 1)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.splitlines()[-1] == "results/Gen_teacher/smallcnndigits_cosine"
    assert read_args(workplace / done.stdout.splitlines()[-1])["script"] == "main_gen_teacher.py"


# --------------------------------------------------------------------------------------------- teachers


def test_a_teacher_is_written_under_net_and_run_name(quick, workplace, capsys):
    folder = main_gen_teacher.main(quick("--run_name", "cifar100_cosine", "--proj_name", "Mine", "--ny_ratio", 0.2))
    assert str(folder) == "results/Mine/smallcnncifar100_cosine"
    assert capsys.readouterr().out.splitlines()[-1] == str(folder)
    assert names(folder) == RUN_FILES
    assert names(workplace) == {"results"}


def test_without_a_run_name_it_is_data_set_schedule_and_noise(lab, quick, workplace):
    assert names(lab / "results" / "Gen_teacher") == {TEACHER}
    folder = main_gen_teacher.main(quick("--scheduler", "multi", "--epochs", 1))
    assert folder.name == "smallcnndigits_multi"
    np.save(workplace / "human.npy", np.zeros(1437, np.int64))
    folder = main_gen_teacher.main(quick("--ny_file", "human.npy", "--epochs", 1))
    assert folder.name == "smallcnndigits_cosine_nhuman"


@pytest.mark.parametrize("kind, realised", [("symmetric", 0.36), ("symmetric_exclusive", 0.4), ("pair", 0.4)])
def test_the_noise_is_applied_and_its_realised_rate_printed_with_its_kind(quick, workplace, capsys, kind, realised):
    folder = main_gen_teacher.main(quick("--ny_ratio", 0.4, "--ny_kind", kind, "--epochs", 1))
    kept = labels(folder)
    rate = (kept["y"] != kept["ny"]).mean()
    assert rate == pytest.approx(realised, abs=0.03)
    (said,) = [line for line in capsys.readouterr().out.splitlines() if f"{rate:.4f}" in line]
    assert kind in said and "0.4" in said


def test_filt_tau_softens_the_table_and_changes_no_weights(quick, workplace):
    plain = main_gen_teacher.main(quick("--run_name", "plain"))
    soft = main_gen_teacher.main(quick("--run_name", "soft", "--filt_tau", 4))
    assert same(weights(plain / "epoch_1.pt"), weights(soft / "epoch_1.pt"))
    sharp, smooth = np.load(plain / "epoch_1.npy"), np.load(soft / "epoch_1.npy")
    visited = sharp.sum(1) > 0
    assert (smooth[visited].max(1) < sharp[visited].max(1)).mean() > 0.95


def test_smoothing_is_the_weight_of_the_newest_prediction(quick, workplace):
    tables = [
        np.load(main_gen_teacher.main(quick("--run_name", s, "--smoothing", s)) / "epoch_1.npy") for s in (0.25, 0.5, 1)
    ]
    quarter, half, newest = (table.astype(np.float64) for table in tables)
    # (1-s) first + s second is a line in s
    np.testing.assert_allclose(half, quarter + (newest - quarter) / 3, atol=1e-6)


def test_without_a_validation_split_the_test_set_chooses_and_this_is_said(quick, workplace, capsys):
    folder = main_gen_teacher.main(quick("--valid_size", 0, "--epochs", 3, "--save_epochs", 0, 1))
    assert "--valid_size 0" in capsys.readouterr().out
    rows = read_csv(folder / "metrics.csv")
    assert all(row[name] == "" for row in rows for name in row if name.startswith("valid_"))
    chosen = max(range(3), key=lambda epoch: float(rows[epoch]["test_acc"]))
    assert same(weights(folder / "best_acc.pt"), weights(folder / f"epoch_{chosen}.pt"))
    kept = labels(folder)
    assert len(kept["valid_idx"]) == 0 and len(kept["idx"]) == 200


def test_with_a_validation_split_nothing_is_said_of_the_test_set(quick, workplace, capsys):
    main_gen_teacher.main(quick("--epochs", 1))
    assert "--valid_size" not in capsys.readouterr().out


def test_the_table_never_sees_rows_that_were_held_out(teacher_path):
    kept, table = labels(teacher_path), np.load(teacher_path / "epoch_1.npy")
    assert len(kept["valid_idx"]) == 20 and not table[kept["valid_idx"]].any()
    np.testing.assert_allclose(table[kept["idx"]].sum(1), 1, atol=1e-5)


def test_teachers_are_trained_with_plain_cross_entropy_on_noisy_labels(quick, workplace, monkeypatch):
    fits = Fits(loop.fit)
    monkeypatch.setattr(experiment, "fit", fits)
    main_gen_teacher.main(quick("--ny_ratio", 0.4, "--epochs", 1))
    (seen,) = fits.seen
    assert isinstance(seen["target"], OneHot) and seen["loss"] is cross_entropy


@pytest.mark.parametrize(
    "script, flags",
    [(main_gen_teacher, []), (main_distill, ["--teach_type", "onehot"]), (old_cifar_noisy, ["--methods", "KD"])],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_check_prints_the_settings_and_starts_nothing(script, flags, quick, workplace, capsys, monkeypatch):
    monkeypatch.setattr(experiment, "fit", lambda *args, **kwargs: pytest.fail("training was started"))
    assert script.main(quick("--check", "--ny_ratio", 0.4, *flags)) is None
    out = capsys.readouterr().out
    assert 'dataset: "digits"' in out and "ny_ratio: 0.4" in out and "data_seed: 10086" in out
    assert "results/" in out.splitlines()[-1]
    assert not names(workplace)


def test_weights_that_cannot_be_fetched_leave_nothing_written(workplace, quick, monkeypatch):
    def no_network(net, name):
        raise NeedsDownload("--pretrained: cannot be fetched")

    monkeypatch.setattr("models.load_imagenet", no_network)
    with pytest.raises(BadInput, match="--pretrained"):
        main_gen_teacher.main(quick("--net", "resnet18", "--pretrained"))
    assert not names(workplace)


# --------------------------------------------------------------------------------------------- students


@pytest.mark.parametrize("teach_type, target", [("net", TeacherNetwork), ("table", TeacherTable)])
def test_a_student_is_written_under_its_teacher(in_lab, distill, capsys, teach_type, target):
    folder, seen = distill("--teach_path", TEACHER, "--teach_type", teach_type)
    assert str(folder) == f"results/Distill_{TEACHER}/{teach_type}_best_acc_digits_cosine_n0.4"
    assert capsys.readouterr().out.splitlines()[-1] == str(folder)
    assert names(folder) == RUN_FILES  # best_acc, best_loss and the last epoch, as weights and as table
    assert isinstance(seen["target"], target)


def test_the_teachers_network_is_placed_when_it_is_decided_whether_networks_are_compiled(in_lab, distill, monkeypatch):
    choose, place, placed = Hardware.choose, Hardware.place, []

    def undecided(*args):
        hardware = choose(*args)
        hardware.compiled = None  # as --compile auto is on CUDA
        return hardware

    monkeypatch.setattr(Hardware, "choose", undecided)
    monkeypatch.setattr(Hardware, "decide_compile", lambda hardware, *_: setattr(hardware, "compiled", False))
    monkeypatch.setattr(Hardware, "place", lambda self, model: placed.append(self.compiled) or place(self, model))
    distill("--teach_path", TEACHER, "--teach_type", "net", "--run_name", "placed")
    assert placed == [False, False]  # teacher and student


@pytest.mark.parametrize("teach_type, ending", [("net", "pt"), ("table", "npy")])
def test_a_student_says_who_teaches_it(in_lab, distill, teacher_path, capsys, teach_type, ending):
    chosen = max(range(2), key=lambda epoch: float(read_csv(teacher_path / "metrics.csv")[epoch]["valid_acc"]))
    for name, epoch in (("best_acc", chosen), ("epoch_1", 1)):
        row = read_csv(teacher_path / "metrics.csv")[epoch]
        distill(
            "--teach_path",
            TEACHER,
            "--teach_type",
            teach_type,
            "--teach_name",
            name,
            "--run_name",
            "asks",
            "--overwrite",
        )
        out = capsys.readouterr().out.splitlines()
        (said,) = [line for line in out if f"{TEACHER}/{name}.{ending}" in line]
        assert teach_type in said and re.search(rf"\b{epoch}\b", said.split(f"{name}.{ending}")[1])
        assert f"{float(row['valid_acc']):.4f}" in said and f"{float(row['test_acc']):.4f}" in said
        hints = [line for line in out if f"{0.95**epoch:.2f}" in line and line != said]
        assert len(hints) == (teach_type == "table")


@pytest.mark.parametrize("epoch, hinted", [(0, True), (27, True), (28, False), (199, False)])  # .95^27 is .2503
def test_a_table_is_an_early_one_while_the_first_prediction_weighs_much(teacher_path, tmp_path, epoch, hinted):
    folder = shutil.copytree(teacher_path, tmp_path / "teacher")
    table = PredictionTable.load(folder / "best_acc.npy")
    table.save(folder / "best_acc.npy", {"epoch": epoch})
    assert len(Teacher(folder, "table", "best_acc").describe("table")) == 1 + hinted


def test_run_project_and_teacher_name_make_the_folder(in_lab, distill):
    flags = ("--teach_path", TEACHER, "--teach_type", "table", "--teach_name", "epoch_1", "--run_name", "mine")
    folder, _ = distill(*flags, "--proj_name", "Mine")
    assert str(folder) == "results/Mine/table_epoch_1_mine"


@pytest.mark.parametrize(
    "teach_type, target", [("onehot", OneHot), ("smooth", SmoothedLabel), ("true", TrueDistribution)]
)
@pytest.mark.parametrize("with_teacher", [True, False])
def test_students_without_a_teachers_target_need_none(in_lab, distill, tmp_path, teach_type, target, with_teacher):
    np.save(tmp_path / "p.npy", np.full((1437, 10), 0.1, np.float32))
    flags = ["--teach_type", teach_type, "--teach_name", "epoch_178"]  # --teach_name plays no part
    flags += ["--true_probs", tmp_path / "p.npy"] if teach_type == "true" else []
    folder, seen = distill(*flags, *(["--teach_path", TEACHER] if with_teacher else DATA))
    project = f"Distill_{TEACHER}" if with_teacher else "Distill_digits"
    assert str(folder) == f"results/{project}/{teach_type}_digits_cosine_n0.4"
    assert isinstance(seen["target"], target)
    theirs = labels(in_lab / "results" / "Gen_teacher" / TEACHER)
    assert np.array_equal(labels(folder)["ny"], theirs["ny"]) == with_teacher  # data settings only when given


def test_a_students_targets_are_its_teachers(in_lab, distill, teacher_path):
    flags = ("--teach_path", TEACHER, "--tau", 4, "--teach_name", "epoch_1", "--overwrite")
    _, kd = distill("--teach_type", "net", *flags)
    assert same(kd["target"].teacher.state_dict(), weights(teacher_path / "epoch_1.pt")) and kd["target"].tau == 4
    _, filter_kd = distill("--teach_type", "table", *flags)
    assert torch.equal(filter_kd["target"].table.values, torch.from_numpy(np.load(teacher_path / "epoch_1.npy")))
    assert filter_kd["target"].tau == 4


def test_the_best_epoch_teaches_unless_another_is_named(in_lab, distill, teacher_path):
    _, seen = distill("--teach_path", TEACHER, "--overwrite")
    assert same(seen["target"].teacher.state_dict(), weights(teacher_path / "best_acc.pt"))


@pytest.mark.parametrize("teach_type, tau", [("net", 4), ("table", 4), ("onehot", 1), ("smooth", 1), ("true", 1)])
def test_all_students_have_one_loss_and_tau_acts_on_teachers_alone(in_lab, distill, tmp_path, teach_type, tau):
    np.save(tmp_path / "p.npy", np.full((1437, 10), 0.1, np.float32))
    flags = ("--teach_path", TEACHER, "--teach_type", teach_type, "--true_probs", tmp_path / "p.npy")
    _, seen = distill(*flags, "--tau", 4, "--proj_name", "Tau")
    assert isinstance(seen["loss"], partial) and seen["loss"].func is distillation_loss
    assert seen["loss"].keywords == {"tau": tau} and not seen["loss"].args


@pytest.mark.parametrize("seed", [1, 2])
def test_teacher_and_student_see_the_same_noise_whatever_the_students_seed(in_lab, distill, teacher_path, seed):
    folder, _ = distill("--teach_path", TEACHER, "--seed", seed, "--run_name", f"seed{seed}")
    theirs, ours = labels(teacher_path), labels(folder)
    assert all(np.array_equal(theirs[name], ours[name]) for name in theirs)
    assert read_args(folder)["seed"] == seed and read_args(folder)["data_seed"] == 1


def test_students_of_one_seed_start_alike_and_see_the_same_batches(in_lab, distill):
    seen = {}
    for teach_type in ("net", "table", "onehot", "smooth"):
        flags = ("--teach_path", TEACHER, "--teach_type", teach_type, "--augment", "crop_flip")
        _, seen[teach_type] = distill(*flags, "--proj_name", "Start", "--seed", 5)
    first = seen["net"]
    for other in seen.values():
        assert same(first["start"], other["start"]) and torch.equal(first["dropout"], other["dropout"])
        assert len(first["order"]) == len(other["order"]) == 8
        assert all(torch.equal(a, b) for a, b in zip(first["order"], other["order"], strict=True))
        assert all(torch.equal(a, b) for a, b in zip(first["images"], other["images"], strict=True))
    _, another = distill("--teach_path", TEACHER, "--proj_name", "Start", "--seed", 6, "--run_name", "another")
    assert not same(first["start"], another["start"])
    assert not torch.equal(torch.cat(first["order"]), torch.cat(another["order"]))


def test_a_run_that_was_moved_still_teaches(teacher_path, workplace, tmp_path, distill):
    moved = shutil.copytree(teacher_path, tmp_path / "archive" / "old teacher")
    for teach_type in ("net", "table"):
        folder, _ = distill("--teach_path", moved, "--teach_type", teach_type)
        assert str(folder) == f"results/Distill_old teacher/{teach_type}_best_acc_digits_cosine_n0.4"
        assert np.array_equal(labels(folder)["ny"], labels(moved)["ny"])


def test_a_teacher_in_the_current_folder_gives_its_name_too(teacher_path, monkeypatch, capsys):
    monkeypatch.chdir(teacher_path)
    main_distill.main([*QUICK_STUDENT, "--teach_path", ".", "--check"])
    assert f"results/Distill_{TEACHER}/net_best_acc_" in capsys.readouterr().out


def test_a_student_can_teach_in_turn(in_lab, distill):
    student, _ = distill("--teach_path", TEACHER, "--run_name", "first")
    for teach_type in ("net", "table"):
        grandchild, seen = distill("--teach_path", student, "--teach_type", teach_type)
        assert grandchild.parts[1] == f"Distill_{student.name}"
        assert np.array_equal(labels(grandchild)["ny"], labels(student)["ny"])
    assert torch.equal(seen["target"].table.values, torch.from_numpy(np.load(student / "best_acc.npy")))


def test_a_students_table_says_its_data_and_temperature(in_lab, distill, teacher_path):
    folder, _ = distill("--teach_path", TEACHER, "--run_name", "described")
    ours, theirs = read_json(folder / "epoch_1.json"), read_json(teacher_path / "epoch_1.json")
    assert ours["filt_tau"] == theirs["filt_tau"] == 1
    assert {name: ours[name] for name in ("dataset", "y_sha256", "ny_sha256", "noise", "epoch", "shape")} == {
        name: theirs[name] for name in ("dataset", "y_sha256", "ny_sha256", "noise", "epoch", "shape")
    }


@pytest.mark.parametrize("teach_type", ["net", "table"])
def test_a_bare_file_of_the_published_code_teaches_with_one_line_of_warning(workplace, distill, capsys, teach_type):
    (workplace / "old").mkdir()
    if teach_type == "net":
        torch.save(build_model("smallcnn", 10, 8, channels=1).state_dict(), workplace / "old" / "epoch_4.pt")
    else:
        values = np.full((1437, 10), 0.1)
        values[::2] = 0  # never visited
        np.save(workplace / "old" / "epoch_4.npy", values)
    folder, seen = distill("--teach_path", "old", "--teach_type", teach_type, "--teach_name", "epoch_4", *DATA)
    assert str(folder) == f"results/Distill_old/{teach_type}_epoch_4_digits_cosine_n0.4"
    out, err = capsys.readouterr()
    (warning,) = err.splitlines()
    assert warning.startswith("warning: ") and f"old/epoch_4.{'pt' if teach_type == 'net' else 'npy'}" in warning
    if teach_type == "table":
        unvisited = int((labels(folder)["idx"] % 2 == 0).sum())
        assert re.search(rf"\b{unvisited}\b.*\b180\b", out)


def test_the_teachers_network_need_not_be_the_students(workplace, distill, quick):
    teacher = main_gen_teacher.main(quick("--width", 2, "--norm", "group", "--epochs", 1))
    folder, seen = distill("--teach_path", teacher.name, "--width", 1)
    assert seen["target"].teacher.fc.in_features == 256 and seen["start"]["fc.weight"].shape == (10, 128)


# ------------------------------------------------------------------------------------------- the comparison


@pytest.fixture(scope="module")
def comparison(quick, tmp_path_factory):
    """A comparison of all methods over two seeds whose first epoch always looks best on validation."""
    fits, accuracies, evaluate = Fits(loop.fit), count(), loop.evaluate

    def falling(model, forward, loader):
        found = evaluate(model, forward, loader)
        return {**found, "acc": -float(next(accuracies))} if loader.num_samples == 20 else found

    root = tmp_path_factory.mktemp("comparison")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(loop, "evaluate", falling)
        patch.setattr(experiment, "fit", fits)
        flags = ("--noisy_level", 4, "--seeds", 2, "--seed", 3, "--path", "mine", "--temp", 2, "--augment", "crop")
        folder = old_cifar_noisy.main(quick(*flags))
    seen = {(int(f["run"].path.parts[-2].removeprefix("seed_")), f["run"].path.name): f for f in fits.seen}
    return root / folder, seen


METHODS = ["OHT", "LS", "KD", "ESKD", "FilterKD", "ES-FilterKD"]


def test_a_comparison_writes_a_folder_a_seed_and_method(comparison):
    folder, seen = comparison
    assert folder.parts[-3:] == ("results", "noisy_digits", "run_mine")
    logs = {f"{name}.txt" for name in ("OHT", "LS", "KD", "ESKD", "FilterKD", "Filter")}  # Filter: as published
    assert names(folder) >= {"results.csv", "comparison.png", "args.json", "seed_3", "seed_4"} | logs
    for seed in (3, 4):
        assert names(folder / f"seed_{seed}") == set(METHODS)
        for method in METHODS:
            assert names(folder / f"seed_{seed}" / method) == RUN_FILES | {"result.json"}
    assert list(seen) == [(seed, method) for seed in (3, 4) for method in METHODS]


def test_every_log_has_a_line_an_epoch_of_every_seed(comparison):
    for log in comparison[0].glob("*.txt"):
        if log.name != "results.txt":
            text = log.read_text()
            assert re.findall(r"\b[01]/1\b", text) == ["0/1", "1/1"] * 2
            assert re.findall(r"(?m) ([34])$", text) == ["3", "4"]  # the seeds


def test_results_csv_has_a_row_a_method_and_seed(comparison):
    folder, _ = comparison
    rows = read_csv(folder / "results.csv")
    assert [(row["seed"], row["method"]) for row in rows] == [(s, m) for s in "34" for m in METHODS]
    for row in rows:
        first, last = read_csv(folder / f"seed_{row['seed']}" / row["method"] / "metrics.csv")
        assert row["test_acc_last"] == last["test_acc"] and row["test_acc_best"] == first["test_acc"]
        assert row["test_acc_oracle"] == max(first["test_acc"], last["test_acc"], key=float)
        assert row["ece_last"] == last["test_ece"] and row["ece_best"] == first["test_ece"]
        assert row["nll_last"] == last["test_nll"] and row["brier_last"] == last["test_brier"]
        assert row["noise"] == "0.4" and row["noise_kind"] == "symmetric"
        kept = labels(folder / f"seed_{row['seed']}" / "OHT")
        assert float(row["noise_realised"]) == pytest.approx((kept["y"] != kept["ny"]).mean(), rel=1e-5)
    assert {row["labels_recovered"] for row in rows if row["method"] in ("OHT", "LS")} == {"0"}


def test_all_methods_start_from_the_same_weights_and_see_the_same_batches(comparison):
    _, seen = comparison
    for seed in (3, 4):
        oht = seen[seed, "OHT"]
        for method in METHODS:
            assert same(oht["start"], seen[seed, method]["start"])
            assert torch.equal(oht["dropout"], seen[seed, method]["dropout"])  # the global generator's state
            assert len(seen[seed, method]["order"]) == 8
            for what in ("order", "images"):
                pairs = zip(oht[what], seen[seed, method][what], strict=True)
                assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(torch.cat(oht["order"][:4]), torch.cat(oht["order"][4:]))  # an order of its own an epoch


def test_another_seed_changes_weights_order_and_noise(comparison):
    folder, seen = comparison
    assert not same(seen[3, "OHT"]["start"], seen[4, "OHT"]["start"])
    assert not torch.equal(torch.cat(seen[3, "OHT"]["order"]), torch.cat(seen[4, "OHT"]["order"]))
    one, two = (labels(folder / f"seed_{seed}" / "KD") for seed in (3, 4))
    assert np.array_equal(one["y"], two["y"])
    assert not np.array_equal(one["ny"], two["ny"]) and not np.array_equal(one["idx"], two["idx"])


def test_all_methods_of_a_seed_have_the_same_noise_and_split(comparison):
    folder, _ = comparison
    for seed in (3, 4):
        first = labels(folder / f"seed_{seed}" / "OHT")
        for method in METHODS[1:]:
            other = labels(folder / f"seed_{seed}" / method)
            assert all(np.array_equal(first[name], other[name]) for name in first)


def test_kd_has_the_last_oht_network_and_eskd_the_one_that_validation_chose(comparison):
    folder, seen = comparison
    for seed in (3, 4):
        oht = folder / f"seed_{seed}" / "OHT"
        last, best = weights(oht / "epoch_1.pt"), weights(oht / "best_acc.pt")
        assert not same(last, best)
        assert same(seen[seed, "KD"]["target"].teacher.state_dict(), last)
        assert same(seen[seed, "ESKD"]["target"].teacher.state_dict(), best)


def test_filterkd_has_the_converged_table_and_es_filterkd_the_early_one(comparison):
    folder, seen = comparison
    for seed in (3, 4):
        oht = folder / f"seed_{seed}" / "OHT"
        last, best = np.load(oht / "epoch_1.npy"), np.load(oht / "best_acc.npy")
        assert not np.array_equal(last, best)
        # used as they are: their predictions were softened by --temp when they were averaged
        np.testing.assert_allclose(seen[seed, "FilterKD"]["target"].table.values.numpy(), last, atol=1e-6)
        np.testing.assert_allclose(seen[seed, "ES-FilterKD"]["target"].table.values.numpy(), best, atol=1e-6)


def test_all_methods_have_one_loss_and_temp_acts_on_teachers_alone(comparison):
    _, seen = comparison
    for (_, method), fit in seen.items():
        assert fit["loss"].func is distillation_loss
        assert fit["loss"].keywords == {"tau": 1 if method in ("OHT", "LS") else 2}
    assert isinstance(seen[3, "OHT"]["target"], OneHot) and isinstance(seen[3, "LS"]["target"], SmoothedLabel)
    assert seen[3, "KD"]["target"].tau == seen[3, "ESKD"]["target"].tau == 2


def test_the_comparisons_tables_are_softened_by_temp(quick, workplace):
    flags = ("--ny_ratio", 0.4, "--methods", "OHT", "--seed", 1)
    plain, soft = (
        old_cifar_noisy.main(quick(*flags, "--path", temp, "--temp", temp)) / "seed_1" / "OHT" for temp in (1, 4)
    )
    assert same(weights(plain / "epoch_1.pt"), weights(soft / "epoch_1.pt"))  # OHT itself is trained at 1
    sharp, smooth = np.load(plain / "epoch_1.npy"), np.load(soft / "epoch_1.npy")
    visited = sharp.sum(1) > 0
    assert (smooth[visited].max(1) < sharp[visited].max(1)).mean() > 0.95


def test_a_given_data_seed_keeps_noise_and_split_over_seeds(quick, workplace):
    flags = ("--noisy_level", 4, "--seeds", 2, "--data_seed", 9, "--methods", "LS", "--epochs", 1, "--path", "x")
    folder = old_cifar_noisy.main(quick(*flags))
    one, two = (labels(folder / f"seed_{seed}" / "LS") for seed in (10086, 10087))
    assert all(np.array_equal(one[name], two[name]) for name in one)
    first, second = (weights(folder / f"seed_{seed}" / "LS" / "epoch_0.pt") for seed in (10086, 10087))
    assert not same(first, second)


def test_chosen_methods_run_alone_and_bring_the_teacher_they_need(quick, workplace, capsys):
    flags = ("--ny_ratio", 0.4, "--epochs", 1, "--seed", 1)
    folder = old_cifar_noisy.main(quick("--methods", "LS", "--path", "ls", *flags))
    assert names(folder / "seed_1") == {"LS"}
    folder = old_cifar_noisy.main(quick("--methods", "FilterKD", "--path", "filter", *flags))
    assert names(folder / "seed_1") == {"OHT", "FilterKD"}
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == "results/noisy_digits/run_filter"
    assert [row["method"] for row in read_csv(folder / "results.csv")] == ["OHT", "FilterKD"]


def test_a_comparison_is_gone_on_with_by_its_name_alone(quick, workplace, capsys):
    flags = ("--methods", "OHT", "--epochs", 1, "--path", "x[1]")
    folder = old_cifar_noisy.main(quick("--ny_ratio", 0.4, *flags))
    assert old_cifar_noisy.main(["--resume", "--path", "x[1]", "--check"]) is None
    out = capsys.readouterr().out
    assert 'dataset: "digits"' in out and "ny_ratio: 0.4" in out and f"{folder}\n" in out
    other = shutil.copytree(folder, "results/noisy_cifar100_notempsquare/run_x[1]")
    with pytest.raises(BadInput) as found:
        old_cifar_noisy.main(["--resume", "--path", "x[1]"])
    assert str(folder) in str(found.value) and str(other) in str(found.value) and "--dataset" in str(found.value)


def test_resume_where_there_is_nothing_starts_and_says_so_first(quick, workplace, capsys):
    folder = main_gen_teacher.main(quick("--epochs", 1, "--resume"))
    first, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{folder}: ")
    main_gen_teacher.main(quick("--epochs", 1, "--resume"))
    assert first not in capsys.readouterr().out


def test_without_a_name_a_run_is_called_by_its_time_and_settings(quick, workplace):
    folder = old_cifar_noisy.main(quick("--noisy_level", 3, "--methods", "OHT", "--epochs", 1))
    assert re.fullmatch(r"run_\d{8}_\d{6}50_0\.05_0\.05_n3", folder.name)


@pytest.mark.parametrize("level", range(10))
def test_a_noisy_level_is_tenths_of_noise(workplace, capsys, level):
    old_cifar_noisy.main(["--noisy_level", str(level), "--device", "cpu", "--check"])
    assert f"ny_ratio: {level / 10}\n" in capsys.readouterr().out


def test_cifar100_has_the_published_folder_and_split(workplace, capsys):
    old_cifar_noisy.main(["--path", "x", "--device", "cpu", "--check"])
    out = capsys.readouterr().out
    assert "results/noisy_cifar100_notempsquare/run_x\n" in out
    assert "valid_size: 5000\n" in out and 'valid_rows: "last"\n' in out
    old_cifar_noisy.main(["--path", "x", "--device", "cpu", "--check", "--valid_size", "0.1"])
    assert 'valid_rows: "random"\n' in capsys.readouterr().out


def test_filterkd_of_the_comparison_is_what_main_distill_does_with_the_same_table(quick, workplace, distill):
    folder = old_cifar_noisy.main(quick("--ny_ratio", 0.4, "--methods", "ESKD", "ES-FilterKD", "--path", "x"))
    oht = folder / "seed_10086" / "OHT"
    for teach_type, method in (("net", "ESKD"), ("table", "ES-FilterKD")):
        student, _ = distill("--teach_path", oht, "--teach_type", teach_type, "--teach_name", "best_acc")
        assert same(weights(student / "epoch_1.pt"), weights(oht.parent / method / "epoch_1.pt"))
