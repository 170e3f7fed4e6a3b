"""A run's folder: what lies in it, that each file is whole, and when it may be replaced."""

import csv
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import main_gen_teacher
from common.errors import BadInput, RunFailure
from common.files import check_intact, read_json, whole_file, write_json
from models import build_model, load_weights
from runs.run_folder import COLUMNS, RunFolder, check_free, checkpoint_path, network_of, read_args, write_metrics
from supervision.table import PredictionTable
from training.loop import evaluate
from utils import experiment_parser, get_loaders


@pytest.fixture(scope="module")
def teach(quick, tmp_path_factory):
    """teach(*flags): the folder of a quick teacher, trained in a folder of its own."""

    def run(*flags):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path_factory.mktemp("teacher"))
            return main_gen_teacher.main(quick(*flags)).absolute()

    return run


@pytest.fixture(scope="module")
def run(teach):
    """Three epochs under noise, epoch 1 kept, with another temperature of the table."""
    return teach("--epochs", 3, "--ny_ratio", 0.4, "--save_epochs", 1, "--filt_tau", 2, "--data_seed", 7)


@pytest.fixture(scope="module")
def again(teach):
    """The same run once more, elsewhere."""
    return teach("--epochs", 3, "--ny_ratio", 0.4, "--save_epochs", 1, "--filt_tau", 2, "--data_seed", 7)


def read_metrics(folder):
    with open(folder / "metrics.csv", newline="") as f:
        return list(csv.DictReader(f))


# ------------------------------------------------------------------------------------------- what is in it


def test_a_run_holds_the_files_that_the_design_lists(run):
    kept = ("best_acc", "best_loss", "epoch_1", "epoch_2")
    expected = {"args.json", "environment.json", "labels.npz", "metrics.csv", "last.pt", "curves.png", "checksums.json"}
    assert {p.name for p in run.iterdir()} == expected | {f"{name}.{e}" for name in kept for e in ("pt", "npy", "json")}
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_args_json_holds_every_flag_and_what_followed_from_them(run):
    args = read_args(run)
    assert args["ny_ratio"] == 0.4 and args["ny_kind"] == "symmetric" and args["epochs"] == 3
    assert args["seed"] == 10086 and args["data_seed"] == 7 and args["smoothing"] == 0.05
    resolved = args["resolved"]
    assert resolved["num_samples"] == 1437 and resolved["num_classes"] == 10
    assert resolved["image_size"] == 8 and resolved["channels"] == 1
    assert len(resolved["mean"]) == len(resolved["std"]) == 1
    assert resolved["class_names"] == [str(k) for k in range(10)]
    assert len(resolved["y_sha256"]) == 64 and resolved["y_sha256"] != resolved["ny_sha256"]
    assert args["given"] == sorted(args["given"]) and {"ny_ratio", "data_seed"} <= set(args["given"])
    assert "seed" not in args["given"]


def test_the_data_seed_is_kept_even_where_none_was_given(teach):
    assert read_args(teach("--epochs", 1, "--seed", 5))["data_seed"] == 5


def test_nothing_in_a_run_says_where_it_is(run):
    for path in (*run.glob("*.json"), run / "metrics.csv"):
        assert str(run.parent) not in path.read_text()


def test_environment_json_names_versions_hardware_precision_and_commit(run):
    environment = read_json(run / "environment.json")
    assert environment["torch"] == torch.__version__ and environment["numpy"] == np.__version__
    assert environment["device"] == "cpu" and environment["precision"] == "float32"
    assert {"python", "torchvision", "hardware", "threads", "git_commit"} <= set(environment)


def test_labels_npz_holds_labels_in_row_order_and_the_rows_of_both_splits(run):
    with np.load(run / "labels.npz", allow_pickle=False) as labels:
        y, ny, idx, valid_idx = (labels[name] for name in ("y", "ny", "idx", "valid_idx"))
        assert set(labels) == {"y", "ny", "idx", "valid_idx"}
    assert y.shape == ny.shape == (1437,) and all(a.dtype == np.int64 for a in (y, ny, idx, valid_idx))
    assert len(idx) == 180 and len(valid_idx) == 20  # a tenth of --train_size 200
    assert len(set(idx) | set(valid_idx)) == 200
    assert (np.bincount(y[np.concatenate([idx, valid_idx])]) == 20).all()  # class-balanced by the clean label
    assert (y != ny).mean() == pytest.approx(read_args(run)["resolved"]["noise_realised"])
    assert (y != ny).mean() == pytest.approx(0.4 * 0.9, abs=0.03)


def opened(path):
    """A new RunFolder of two samples of an image folder."""
    dataset = SimpleNamespace(
        num_classes=2,
        class_names=["a", "b"],
        channels=3,
        image_size=8,
        mean=(0.5,) * 3,
        std=(0.2,) * 3,
        train_paths=["a/0.png", "b/ö.png"],
        test_size=None,
    )
    y = np.array([0, 1])
    data = SimpleNamespace(
        corrected=False, dataset=dataset, y=y, ny=y, train_idx=y, valid_idx=y[:0], noise_realised=0.0, fingerprints=dict
    )
    args = experiment_parser("").parse_args(["--dataset", "folder", "--epochs", "1"])
    return RunFolder(path, args, data, SimpleNamespace(describe=dict))


def test_of_image_folders_labels_npz_keeps_the_paths(tmp_path):
    with opened(tmp_path / "run") as run:
        pass
    with np.load(run.path / "labels.npz", allow_pickle=False) as labels:
        assert labels["paths"].tolist() == ["a/0.png", "b/ö.png"]


def test_metrics_csv_has_a_line_an_epoch_and_the_columns_of_the_design(run):
    rows = read_metrics(run)
    assert (
        list(rows[0])
        == (
            "epoch lr train_loss train_acc_noisy train_acc_clean train_ece valid_loss valid_acc valid_ece valid_nll "
            "valid_brier test_loss test_acc test_ece test_nll test_brier seconds seconds_waited"
        ).split()
    )
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert all(value for row in rows for value in row.values())


def test_cells_without_a_figure_are_empty(tmp_path):
    with open(tmp_path / "metrics.csv", "w") as f:
        write_metrics(f, [{"epoch": 0, "lr": 0.1, "test_acc": 0.5, "seconds": 1.25, "extra": 3}])
    (row,) = read_metrics(tmp_path)
    assert row["test_acc"] == "0.5" and row["seconds"] == "1.25" and row["valid_acc"] == ""
    assert list(row) == COLUMNS and COLUMNS[-2:] == ["seconds", "seconds_waited"]


def test_equal_runs_differ_in_their_seconds_only(run, again):
    strip = [{**row, "seconds": "", "seconds_waited": ""} for row in read_metrics(run)]
    assert strip == [{**row, "seconds": "", "seconds_waited": ""} for row in read_metrics(again)]
    for name in ("best_acc", "best_loss", "epoch_1", "epoch_2"):
        assert (run / f"{name}.npy").read_bytes() == (again / f"{name}.npy").read_bytes()
        weights, others = (torch.load(folder / f"{name}.pt", weights_only=True) for folder in (run, again))
        assert all(torch.equal(weights[key], others[key]) for key in weights)


# ------------------------------------------------------------------------------- checkpoints and tables


def test_a_checkpoint_is_a_bare_state_dict(run):
    weights = torch.load(run / "epoch_2.pt", weights_only=True)
    model = build_model("smallcnn", 10, 8, channels=1)
    assert set(weights) == set(model.state_dict())
    load_weights(model, run / "epoch_2.pt")


def test_a_checkpoint_gives_the_accuracy_that_metrics_csv_says(run, quick):
    _, _, test = get_loaders(experiment_parser("").parse_args(quick()))
    rows = read_metrics(run)
    chosen = max(range(3), key=lambda epoch: float(rows[epoch]["valid_acc"]))  # the first on ties
    for name, epoch in (("epoch_1", 1), ("epoch_2", 2), ("best_acc", chosen)):
        model = load_weights(network_of(run), run / f"{name}.pt")
        assert evaluate(model, model, test)["acc"] == pytest.approx(float(rows[epoch]["test_acc"]), abs=1e-6)


def test_tables_say_their_epoch_their_data_and_their_temperature(run):
    resolved, rows = read_args(run)["resolved"], read_metrics(run)
    chosen = min(range(3), key=lambda epoch: float(rows[epoch]["valid_loss"]))
    for name, epoch in (("epoch_1", 1), ("epoch_2", 2), ("best_loss", chosen)):
        described = read_json(run / f"{name}.json")
        assert described["epoch"] == epoch and described["filt_tau"] == 2
        assert described["dataset"] == "digits" and described["smoothing"] == 0.05
        assert described["y_sha256"] == resolved["y_sha256"] and described["ny_sha256"] == resolved["ny_sha256"]
        assert described["noise"]["ny_ratio"] == 0.4 and described["noise"]["ny_kind"] == "symmetric"
        assert described["noise"]["realised"] == resolved["noise_realised"]


def test_rows_that_were_held_out_or_left_out_stay_unvisited(run):
    table = PredictionTable.load(run / "epoch_2.npy")
    with np.load(run / "labels.npz") as labels:
        assert np.flatnonzero(table.visited.numpy()).tolist() == labels["idx"].tolist()
    assert read_json(run / "epoch_2.json")["rows_visited"] == 180


def test_last_pt_holds_all_that_going_on_needs_and_no_pickled_object(run):
    state = torch.load(run / "last.pt", weights_only=True)
    assert state["epoch"] == 3 and len(state["rows"]) == 3
    assert {"model", "optimizer", "scaler", "loader", "table", "recorders", "update", "global_generator"} <= set(state)


def test_a_missing_checkpoint_is_answered_with_those_there_are(run):
    assert checkpoint_path(run, "--checkpoint", "epoch_1") == run / "epoch_1.pt"
    with pytest.raises(BadInput) as found:
        checkpoint_path(run, "--checkpoint", "epoch_4")
    (message,) = found.value.messages
    assert message.startswith("--checkpoint epoch_4: ") and str(run) in message
    assert all(name in message for name in ("best_acc", "best_loss", "epoch_1", "epoch_2"))


@pytest.mark.parametrize("content", [None, "{", "[]", "{}"])
def test_args_json_that_is_missing_or_damaged_is_bad_input(tmp_path, content):
    if content is not None:
        (tmp_path / "args.json").write_text(content)
    with pytest.raises(BadInput, match="args.json"):
        read_args(tmp_path)


# ------------------------------------------------------------------------------------ whole or not at all


def test_a_block_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("old")
    with pytest.raises(ValueError, match="stop"), whole_file(path, "w") as f:
        f.write("half of the new")
        raise ValueError("stop")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_has_its_old_content_until_the_block_ends(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"version": 1})
    with whole_file(path) as f:
        f.write(b'{"version": 2}')
        assert read_json(path) == {"version": 1}
    assert read_json(path) == {"version": 2}


def test_a_full_disk_names_the_file_that_it_stopped(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError) as found:
        write_json(tmp_path / "args.json", {})
    assert found.value.filename == str(tmp_path / "args.json")
    assert not list(tmp_path.iterdir())


def state_of(model):
    return SimpleNamespace(
        model=model,
        table=None,
        epoch=1,
        update=1,
        rows=[{"epoch": 0}],
        state_dict=lambda: {"model": model.state_dict()},
    )


def test_a_checkpoint_too_large_for_the_disk_leaves_the_epoch_before(tmp_path):
    resource = pytest.importorskip("resource", reason="file size limits are POSIX")
    run = opened(tmp_path)
    run.save_epoch(state_of(torch.nn.Linear(2, 2)), 0, [])
    before = (tmp_path / "last.pt").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # bytes: writing more fails, as on a full disk
    try:
        with pytest.raises(RunFailure, match="last.pt"):
            run.save_epoch(state_of(torch.nn.Linear(1000, 100)), 1, [])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "last.pt").read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {
        *("args.json", "environment.json", "labels.npz", "checksums.json", "last.pt", "epoch_0.pt", "metrics.csv")
    }
    check_intact(tmp_path / "last.pt")


# ------------------------------------------------------------------------------------ when it may be replaced

KEEP, REPLACE = (SimpleNamespace(overwrite=overwrite, resume=False, ny_file=None) for overwrite in (False, True))


def test_a_folder_that_is_not_there_or_empty_is_free(tmp_path):
    check_free(tmp_path / "new", KEEP)
    check_free(tmp_path, KEEP)


def test_a_run_is_replaced_only_when_asked_to(tmp_path):
    (tmp_path / "args.json").write_text("{}")
    with pytest.raises(BadInput, match="--overwrite"):
        check_free(tmp_path, KEEP)
    check_free(tmp_path, REPLACE)


def test_a_folder_that_is_no_run_is_never_replaced(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    for args in (KEEP, REPLACE):
        with pytest.raises(BadInput, match=str(tmp_path)):
            check_free(tmp_path, args)


def test_a_file_in_the_place_of_a_run_is_never_replaced(tmp_path):
    (tmp_path / "run").write_text("")
    for args in (KEEP, REPLACE):
        with pytest.raises(BadInput, match="run"):
            check_free(tmp_path / "run", args)


def test_overwriting_leaves_nothing_of_the_old_run(workplace, quick):
    run = main_gen_teacher.main(quick("--epochs", 2, "--save_epochs", 0))
    assert (run / "epoch_0.pt").exists()
    with pytest.raises(BadInput, match="--overwrite"):
        main_gen_teacher.main(quick("--epochs", 1))
    assert (run / "epoch_1.pt").exists()
    assert main_gen_teacher.main(quick("--epochs", 1, "--overwrite")) == run
    assert (run / "epoch_0.pt").exists() and not (run / "epoch_1.pt").exists()
