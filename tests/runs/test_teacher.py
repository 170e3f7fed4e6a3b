"""A finished run as a teacher: what a student inherits, and which teachers are refused."""

import re
import shutil

import numpy as np
import pytest
import torch

import main_distill
import main_gen_teacher
from common.errors import BadInput
from common.files import CHECKSUMS, read_json, write_json
from data.labels import load_data
from models import build_model
from runs.run_folder import read_args
from runs.teacher import INHERITED, Teacher


@pytest.fixture(scope="module")
def taught(quick, tmp_path_factory):
    """The folder of a teacher with settings of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("teacher"))
        flags = ("--ny_ratio", 0.3, "--ny_kind", "pair", "--valid_size", 30, "--seed", 11, "--width", 2)
        return main_gen_teacher.main(quick(*flags, "--norm", "group", "--epochs", 1)).absolute()


@pytest.fixture
def teacher_folder(taught, tmp_path):
    """A copy of it that a test may damage."""
    return shutil.copytree(taught, tmp_path / "copy")


def student(*flags):
    """args of a student with these flags, and a batch size that fits all the data sets here."""
    return main_distill.make_parser().parse_args(["--batch_size", "10", *map(str, flags)])


def inherit(folder, *flags, teach_type="net"):
    """(args, messages) after the settings were passed on."""
    args = student(*flags)
    try:
        Teacher(folder, teach_type, "best_acc").pass_on_settings(args)
    except BadInput as found:
        return args, found.messages
    return args, []


def complaint(call, *args):
    with pytest.raises(BadInput) as found:
        call(*args)
    (message,) = found.value.messages
    return message


def data_of(folder, **changes):
    """The LabelledData of a run, with some of its settings changed."""
    args, _ = inherit(folder)
    for name, value in changes.items():
        setattr(args, name, value)
    return load_data(args)


def change_json(path, **changes):
    write_json(path, {**read_json(path), **changes})
    (path.parent / CHECKSUMS).unlink(missing_ok=True)


# ------------------------------------------------------------------------------------------- finding it


def test_a_name_is_looked_for_below_the_results_and_then_as_a_path(taught, workplace):
    named = workplace / "results" / "Gen_teacher" / "mine"
    shutil.copytree(taught, named)
    assert Teacher("mine", "net", "best_acc").path == named.relative_to(workplace)
    shutil.copytree(taught, workplace / "mine")
    assert Teacher("mine", "net", "best_acc").path == named.relative_to(workplace)
    shutil.rmtree(named)
    assert str(Teacher("mine", "net", "best_acc").path) == "mine"
    assert Teacher(str(taught), "net", "best_acc").path == taught


# -------------------------------------------------------------------------------------- what is inherited


def test_a_student_inherits_data_subset_split_noise_and_data_seed(taught):
    args, messages = inherit(taught)
    assert not messages
    theirs = read_args(taught)
    assert {name: getattr(args, name) for name in INHERITED} == {name: theirs[name] for name in INHERITED}
    assert args.dataset == "digits" and args.train_size == 200 and args.valid_size == 30
    assert args.ny_ratio == 0.3 and args.ny_kind == "pair" and args.data_seed == 11


def test_a_student_keeps_its_own_network_and_training(taught):
    args, _ = inherit(taught, "--seed", 99, "--lr", 0.3)
    assert args.seed == 99 and args.lr == 0.3
    assert (args.net, args.width, args.norm, args.epochs, args.batch_size) == ("resnet18", 1, "batch", 200, 10)


@pytest.mark.parametrize(
    "flag, theirs, ours",
    [
        ("ny_ratio", 0.3, 0.2),
        ("ny_kind", "pair", "symmetric"),
        ("train_size", 200, 100),
        ("valid_size", 30, 0.1),
        ("data_seed", 11, 12),
        ("dataset", "digits", "cifar10"),
    ],
)
def test_a_flag_that_contradicts_the_teacher_names_both_values(taught, flag, theirs, ours):
    _, (message,) = inherit(taught, f"--{flag}", ours)
    assert message.startswith(f"--{flag} {ours:g}" if isinstance(ours, float) else f"--{flag} {ours}")
    assert f"{flag} {theirs:g}" in message if isinstance(theirs, float) else f"{flag} {theirs}" in message


def test_a_default_that_is_given_contradicts_too(taught):
    _, (message,) = inherit(taught, "--ny_ratio", 0)
    assert "0.3" in message


def test_a_flag_that_agrees_is_no_mistake(taught):
    _, messages = inherit(taught, "--dataset", "digits", "--ny_ratio", 0.3, "--valid_size", 30, "--data_seed", 11)
    assert not messages


def test_data_may_have_moved(teacher_folder):
    change_json(teacher_folder / "args.json", data_dir="/there/once")
    assert inherit(teacher_folder)[0].data_dir == "/there/once"
    assert inherit(teacher_folder, "--data_dir", "/here/now")[0].data_dir == "/here/now"


def test_a_label_file_may_have_moved_but_not_come_or_gone(teacher_folder):
    _, (message,) = inherit(teacher_folder, "--ny_file", "human.npy")
    assert "human.npy" in message and "None" in message
    change_json(teacher_folder / "args.json", ny_file="/there/human.npy", ny_ratio=0.0)
    args, messages = inherit(teacher_folder, "--ny_file", "here/human.npy")
    assert args.ny_file == "here/human.npy" and not messages
    assert inherit(teacher_folder)[0].ny_file == "/there/human.npy"


def test_a_teacher_without_args_json_leaves_the_students_settings(teacher_folder):
    (teacher_folder / "args.json").unlink()
    args, messages = inherit(teacher_folder, "--dataset", "digits")
    assert not messages and args.dataset == "digits" and args.ny_ratio == 0 and args.data_seed is None


# ----------------------------------------------------------------------------------- networks and tables


def test_the_teachers_network_is_built_from_its_own_settings(taught):
    args, _ = inherit(taught)  # the student's own: resnet18 with BatchNorm
    dataset = load_data(args).dataset
    model = Teacher(taught, "net", "best_acc").read_network(args, dataset)
    weights = torch.load(taught / "best_acc.pt", weights_only=True)
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize("teach_net, net", [("smallcnn", "resnet18"), (None, "smallcnn")])
def test_a_bare_checkpoint_is_read_as_teach_net_or_net_with_one_warning(tmp_path, capsys, teach_net, net):
    torch.save(build_model("smallcnn", 10, 8, channels=1).state_dict(), tmp_path / "epoch_4.pt")
    args = student("--dataset", "digits", "--net", net)
    dataset = load_data(args).dataset
    model = Teacher(tmp_path, "net", "epoch_4").read_network(args, dataset, teach_net)
    assert type(model).__name__ == "SmallCNN"
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: ") and "epoch_4.pt" in warning and "smallcnn" in warning


def test_the_teachers_table_is_read(taught):
    args, _ = inherit(taught)
    table = Teacher(taught, "table", "best_acc").read_table(load_data(args).dataset)
    assert np.array_equal(table.values.numpy(), np.load(taught / "best_acc.npy"))


def test_a_bare_table_is_accepted_with_one_warning(tmp_path, capsys):
    np.save(tmp_path / "epoch_4.npy", np.full((1437, 10), 0.1))
    args = student("--dataset", "digits")
    table = Teacher(tmp_path, "table", "epoch_4").read_table(load_data(args).dataset)
    assert table.visited.all()
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: ") and "epoch_4.npy" in warning


# ---------------------------------------------------------------------------------------- the same data


@pytest.mark.parametrize("change", [{"data_seed": 12}, {"ny_ratio": 0.2}, {"ny_kind": "symmetric"}])
@pytest.mark.parametrize("teach_type", ["net", "table"])
def test_a_teacher_of_other_noise_is_refused(taught, teach_type, change):
    message = complaint(Teacher(taught, teach_type, "best_acc").check_data, data_of(taught, **change))
    assert str(taught) in message


def other_data(path, num_train=40, num_classes=10, side=8, colours=1, shift=0):
    """An npz data set."""
    arrays = {}
    for split, n in (("train", num_train), ("test", 20)):
        arrays[f"{split}_images"] = np.zeros((n, side, side, colours), np.uint8)
        arrays[f"{split}_labels"] = (np.arange(n) + shift) % num_classes
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="module")
def npz_teacher(quick, tmp_path_factory):
    """A teacher of other_data()."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("npz"))
        file = other_data("a.npz")
        flags = (
            "--dataset",
            "npz",
            "--data_dir",
            file,
            "--train_size",
            40,
            "--batch_size",
            10,
            "--epochs",
            1,
            "--ny_ratio",
            0.3,
        )
        return main_gen_teacher.main(quick(*flags)).absolute()


@pytest.mark.parametrize(
    "change, named",
    [
        ({"shift": 1}, []),
        ({"num_train": 50}, ["40", "50"]),
        ({"num_classes": 5}, ["10", "5"]),
        ({"side": 12}, ["8", "12"]),
        ({"colours": 3}, ["1", "3"]),
    ],
)
def test_a_teacher_of_other_data_is_refused_and_the_difference_named(npz_teacher, tmp_path, change, named):
    file = other_data(tmp_path / "b.npz", **change)
    message = complaint(Teacher(npz_teacher, "net", "best_acc").check_data, data_of(npz_teacher, data_dir=str(file)))
    labels = read_args(npz_teacher)["resolved"]["y_sha256"][:12]
    assert set(named or [labels]) <= set(re.findall(r"\w+", message)), message


def test_the_same_data_in_another_place_is_accepted(npz_teacher, tmp_path):
    data = data_of(npz_teacher, data_dir=str(other_data(tmp_path / "moved.npz")))
    Teacher(npz_teacher, "table", "best_acc").check_data(data)


def test_a_table_that_was_copied_without_its_run_still_knows_its_labels(taught, tmp_path):
    for ending in ("npy", "json"):
        shutil.copy(taught / f"best_acc.{ending}", tmp_path)
    teacher = Teacher(tmp_path, "table", "best_acc")
    teacher.check_data(data_of(taught))
    assert str(tmp_path) in complaint(teacher.check_data, data_of(taught, data_seed=12))


def test_settings_only_needs_no_checkpoint(teacher_folder):
    for file in (*teacher_folder.glob("*.pt"), *teacher_folder.glob("*.npy")):
        file.unlink()
    args = student()
    teacher = Teacher(teacher_folder, "onehot", "best_acc")
    teacher.pass_on_settings(args)
    teacher.check_data(load_data(args))
    assert args.data_seed == 11
