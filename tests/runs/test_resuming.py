"""--resume: under which flags a run goes on, what it says, and what stops it."""

import os
import re
import shutil

import numpy as np
import pytest
import torch

import cifar10h_gen_path
import main_distill
import main_gen_path
import main_gen_teacher
import old_cifar_noisy
from common import hardware as device
from common import interruption
from common.errors import BadInput, Interrupted
from common.files import read_json, write_json
from runs.lock import FolderLock
from runs.run_folder import RunFolder, read_args
from training import loop


@pytest.fixture(scope="module")
def finished(quick, tmp_path_factory):
    """The place of a finished teacher and of a finished recording."""
    place = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        main_gen_teacher.main(quick("--ny_ratio", 0.3, "--lr", 0.07))
        main_gen_path.main(quick("--scheduler", "multi"))
    return place


@pytest.fixture
def place(finished, tmp_path, monkeypatch):
    shutil.copytree(finished, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


TEACHER = ("--ny_ratio", 0.3, "--lr", 0.07)  # beside quick's flags


def listing(folder):
    return {f: f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_a_finished_run_says_so_and_is_left_as_it_is(place, quick, capsys):
    before = {f: content for f, content in listing(place).items() if f.suffix in (".pt", ".npy", ".csv")}
    assert main_gen_teacher.main(quick(*TEACHER, "--resume")).is_dir()
    out = capsys.readouterr().out
    assert re.search(r"\b2\b", out) and "0/1" not in out
    assert {f: f.read_bytes() for f in before} == before


def test_flags_that_are_not_given_are_the_runs(place, quick):
    main_gen_teacher.main([*"--dataset digits --net smallcnn --ny_ratio 0.3 --resume".split()])
    assert read_args(place / "results/Gen_teacher/smallcnndigits_cosine_n0.3")["lr"] == 0.07


@pytest.mark.parametrize(
    "flags, named",
    [(("--lr", 0.2), "--lr 0.2.* 0.07"), (("--seed", 3), "--seed 3"), (("--epochs", 5), "--epochs 5")]
    + [(("--augment", "none"), "--augment none")],
)
def test_a_flag_that_contradicts_the_run_is_named(place, quick, flags, named):
    before = listing(place)
    with pytest.raises(BadInput, match=named) as found:
        main_gen_teacher.main(quick(*TEACHER, *flags, "--resume"))
    assert "--batch_size" not in str(found.value) and listing(place) == before


def test_resume_and_overwrite_together_are_a_mistake(place, quick):
    with pytest.raises(BadInput, match="--overwrite"):
        main_gen_teacher.main(quick(*TEACHER, "--resume", "--overwrite"))


def test_where_nothing_is_saved_a_run_starts_at_zero(workplace, quick):
    run = main_gen_teacher.main(quick("--epochs", 1, "--resume"))  # no folder at all
    assert (run / "epoch_0.pt").exists()
    for name in ("last.pt", "metrics.csv"):  # killed before anything was saved, with other flags
        (run / name).unlink()
    main_gen_teacher.main(quick("--epochs", 1, "--lr", 0.01, "--resume"))
    assert read_args(run)["lr"] == 0.01 and (run / "epoch_0.pt").exists()


def test_a_run_that_lost_its_last_pt_is_not_replaced(workplace, quick):
    run = main_gen_teacher.main(quick("--epochs", 1))
    (run / "last.pt").unlink()
    with pytest.raises(BadInput, match=r"last\.pt"):
        main_gen_teacher.main(quick("--epochs", 1, "--resume"))
    assert (run / "epoch_0.pt").exists()


@pytest.mark.parametrize(
    "name, key, odd",
    [
        ("environment.json", "threads", None),
    ],
)
def test_an_odd_value_in_the_files_of_the_run_is_named(workplace, quick, name, key, odd):
    run = main_gen_teacher.main(quick("--epochs", 1))
    content = {**read_json(run / name), key: odd}
    if odd is None:
        del content[key]
    write_json(run / name, content)
    (run / "checksums.json").unlink()
    with pytest.raises(BadInput, match=rf"{name}: "):
        main_gen_teacher.main(quick("--epochs", 1, "--resume"))


def test_a_folder_left_by_a_start_that_was_killed_early_is_free(workplace, quick):
    folder = workplace / "results/Gen_teacher/smallcnndigits_cosine"
    folder.mkdir(parents=True)
    (folder / "args.json.partial").write_text("{")
    (folder / "checksums.json").write_text("{")
    assert main_gen_teacher.main(quick("--epochs", 1)) and not (folder / "args.json.partial").exists()


def test_only_a_multi_run_may_grow(place, quick):
    with pytest.raises(BadInput, match="--epochs 4.* 2"):
        main_gen_teacher.main(quick(*TEACHER, "--epochs", 4, "--resume"))
    grown = main_gen_path.main(quick("--scheduler", "multi", "--epochs", 4, "--resume")).absolute()
    whole = main_gen_path.main(quick("--scheduler", "multi", "--epochs", 4, "--run_name", "whole")).absolute()
    assert read_args(grown)["epochs"] == 4
    for path in sorted(whole.glob("*.npy")):
        assert (grown / path.name).read_bytes() == path.read_bytes(), path.name
    weights, others = (torch.load(run / "epoch_3.pt", weights_only=True) for run in (grown, whole))
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    with pytest.raises(BadInput, match="--epochs 2.* 4"):
        main_gen_path.main(quick("--scheduler", "multi", "--epochs", 2, "--resume"))


def test_a_path_that_is_gone_is_not_begun_anew(place, quick):
    run = place / "results/Gen_path/run_digits_multi"
    (run / "PATH_BATCH_FINE.npy").unlink()
    with pytest.raises(BadInput, match="PATH_BATCH_FINE.npy"):
        main_gen_path.main(quick("--scheduler", "multi", "--resume"))


def test_other_labels_or_another_teacher_stop_it(place, quick):
    student = quick("--teach_path", "smallcnndigits_cosine_n0.3", "--teach_type", "table")
    student = [f for f in student if f not in ("--train_size", "200")]
    main_distill.main(student)
    other = main_gen_teacher.main(quick(*TEACHER, "--seed", 5, "--data_seed", 10086, "--run_name", "other"))
    teacher = place / "results/Gen_teacher/smallcnndigits_cosine_n0.3"
    shutil.rmtree(teacher)
    shutil.move(place / other, teacher)
    with pytest.raises(BadInput, match="target_sha256"):
        main_distill.main([*student, "--resume"])


def test_a_resumed_run_keeps_its_precision_or_names_what_it_cannot(place, quick):
    file = place / "results/Gen_teacher/smallcnndigits_cosine_n0.3/environment.json"
    with pytest.raises(BadInput, match="--amp bf16.* float32"):
        main_gen_teacher.main(quick(*TEACHER, "--amp", "bf16", "--resume"))
    missing = "mps" if not torch.backends.mps.is_available() else "cuda"
    write_json(file, {**read_json(file), "device": missing})
    write_json(file.parent / "args.json", {**read_args(file.parent), "given": [], "device": "auto"})
    (file.parent / "checksums.json").unlink()
    flags = [f for f in quick(*TEACHER) if f not in ("--device", "cpu")]
    with pytest.raises(BadInput, match=f"--resume.* {missing}"):
        main_gen_teacher.main([*flags, "--resume"])


@pytest.mark.parametrize("flag", [[], ["--amp", "auto"]])
def test_a_run_in_bfloat16_does_not_go_on_imitated_unless_asked_to(workplace, quick, monkeypatch, flag):
    native = True
    monkeypatch.setattr(device, "native_bfloat16", lambda device: native)
    flags = [*quick("--epochs", 1)[:-4], "--epochs", "1"]  # all but --amp off
    main_gen_teacher.main([*flags, *flag])
    native = False
    with pytest.raises(BadInput, match="--amp bf16"):
        main_gen_teacher.main([*flags, *flag, "--resume"])
    main_gen_teacher.main([*flags, "--amp", "bf16", "--resume"])


def test_other_hardware_is_said(place, quick, capsys, monkeypatch):
    monkeypatch.setattr(device, "usable_cpus", lambda: 1)
    file = place / "results/Gen_teacher/smallcnndigits_cosine_n0.3/environment.json"
    write_json(file, {**read_json(file), "threads": 77})
    (file.parent / "checksums.json").unlink()
    main_gen_teacher.main(quick(*TEACHER, "--resume"))
    assert re.search(r"threads.*\b77\b.*\b1\b", capsys.readouterr().out)


def test_a_folder_in_use_is_left_alone(place, quick):
    lock = FolderLock(place / "results/Gen_teacher/smallcnndigits_cosine_n0.3")
    for flag in ("--resume", "--overwrite"):
        with pytest.raises(BadInput, match="n0.3"):
            main_gen_teacher.main(quick(*TEACHER, flag))
    lock.release()
    main_gen_teacher.main(quick(*TEACHER, "--resume"))


def test_last_pt_is_written_every_so_many_epochs_and_at_the_end(workplace, quick, monkeypatch):
    epochs, save = [], RunFolder._write_metrics

    def spy(run, state, open_file):
        epochs.append(state.epoch)
        save(run, state, open_file)

    monkeypatch.setattr(RunFolder, "_write_metrics", spy)
    main_gen_teacher.main(quick("--epochs", 5, "--save_every", 2))
    assert epochs == [2, 4, 5]


def test_save_minutes_saves_within_an_epoch(workplace, quick, monkeypatch):
    updates, save = [], RunFolder.save
    monkeypatch.setattr(RunFolder, "save", lambda run, state: (updates.append(state.update), save(run, state)))
    main_gen_teacher.main(quick("--epochs", 1, "--save_minutes", 1e-9))
    assert updates == [1, 2, 3, 4]


def test_a_comparison_is_resumed_by_its_name(workplace, quick):
    with pytest.raises(BadInput, match="--path"):
        old_cifar_noisy.main(quick("--resume"))


# ------------------------------------------------------------------------------------------------- signals


def signal_at(monkeypatch, moment):
    """Note a signal when loop's function `moment` is called for the second time."""
    calls, original = [], getattr(loop, moment)

    def wrapped(*args, **kwargs):
        calls.append(moment)
        if len(calls) == 2:
            monkeypatch.setattr(interruption, "_noted", 15)
        return original(*args, **kwargs)

    monkeypatch.setattr(loop, moment, wrapped)


@pytest.mark.parametrize("moment", ["predict", "evaluate", "train_epoch", "learning_rate"])
@pytest.mark.parametrize("script", [main_gen_teacher, main_gen_path, cifar10h_gen_path])
def test_a_signal_at_any_moment_saves_what_then_goes_on(workplace, quick, monkeypatch, script, moment):
    flags = ["--epochs", 3, "--eval_train"]
    if script is cifar10h_gen_path:
        from data.datasets import digits

        np.save("probs.npy", np.eye(10, dtype=np.float32)[digits(None).test.labels])
        flags += ["--human_probs", "probs.npy", "--fine_samples", 30]
    whole = script.main(quick(*flags, "--run_name", "whole"))
    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="--resume"):
        signal_at(patch, moment)
        script.main(quick(*flags, "--run_name", "stopped"))
    stopped = script.main(quick(*flags, "--run_name", "stopped", "--resume"))
    assert os.listdir(whole) and sorted(os.listdir(whole)) == sorted(os.listdir(stopped))
    for file in whole.iterdir():
        if file.suffix == ".npy" or file.suffix == ".pt" and file.name != "last.pt":
            assert file.read_bytes() == (stopped / file.name).read_bytes(), file.name
