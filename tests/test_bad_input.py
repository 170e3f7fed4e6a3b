"""A user's mistake: a line or two on standard error, exit code 2, nothing written; wrong flag values all at once."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import analyze_paths
import cifar10h_gen_path
import evaluate
import main_distill
import main_gen_path
import main_gen_teacher
import old_cifar_noisy
from common import errors
from data import download, refolder_tiny_imagenet
from models import build_model

SCRIPTS = {
    "teacher": main_gen_teacher,
    "student": main_distill,
    "comparison": old_cifar_noisy,
}
REPOSITORY = Path(__file__).parent.parent
DIGITS = "--dataset digits --net smallcnn --device cpu".split()


# ------------------------------------------------------------------------------------------------- files


def write_npz(path, **changes):
    """A small data set in the MedMNIST layout, with arrays changed."""
    arrays = {}
    for split, n in (("train", 30), ("test", 10)):
        arrays[f"{split}_images"] = np.zeros((n, 8, 8), np.uint8)
        arrays[f"{split}_labels"] = np.arange(n) % 3
    np.savez(path, **arrays | changes)


def uniform(rows=1437, classes=10):
    return np.full((rows, classes), 1 / classes, np.float32)


@pytest.fixture(scope="module")
def taught(quick, tmp_path_factory):
    """A teacher's folder: digits with 40 % noise of data seed 1."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("taught"))
        return main_gen_teacher.main(quick("--ny_ratio", 0.4, "--data_seed", 1, "--epochs", 1)).absolute()


@pytest.fixture(scope="module")
def files(taught, tmp_path_factory):
    """A folder of things that are wrong; the flags below name them as @NAME."""
    there = tmp_path_factory.mktemp("files")
    write_npz(there / "good.npz")
    write_npz(there / "lengths.npz", train_labels=np.arange(29) % 3)
    (there / "broken.npz").write_bytes((there / "good.npz").read_bytes()[:300])
    (there / "text.npz").write_text("not an archive")
    (there / "empty").mkdir()
    np.savez(there / "other_order.npz", clean_label=np.arange(1437) % 10, worse=np.arange(1437) % 7)
    np.save(there / "short.npy", np.zeros(100, np.int64))
    np.save(there / "labels.npy", np.zeros(1437, np.int64))
    np.save(there / "eleven.npy", np.full(1437, 10))
    with open(there / "terabytes.npy", "wb") as f:
        np.lib.format.write_array_header_1_0(f, {"descr": "<i8", "fortran_order": False, "shape": (2**40,)})
    (there / "marks.csv").write_text("idx,given_label,label,mark\n" + "".join(f"{i},0,0,\n" for i in range(1437)))
    np.save(there / "probs.npy", uniform())
    np.save(there / "probs_short.npy", uniform(10))
    np.save(there / "logits.npy", np.full((1437, 10), 3.0))
    tables = there / "tables"  # as of the published code: no run folder around them
    tables.mkdir()
    np.save(tables / "shape.npy", uniform(1437, 100))
    np.save(tables / "nan.npy", np.where(np.arange(10) == 3, np.nan, uniform()))
    (tables / "cut.npy").write_bytes((there / "probs.npy").read_bytes()[:1000])
    for name in ("best_acc.npy", "best_acc.json"):
        shutil.copy(taught / name, tables)
    nets = there / "nets"
    nets.mkdir()
    torch.save(build_model("preact_resnet18", 10, 8, channels=1).state_dict(), nets / "preact.pt")
    torch.save(build_model("smallcnn", 100, 8, channels=1).state_dict(), nets / "classes.pt")
    (nets / "cut.pt").write_bytes((nets / "classes.pt").read_bytes()[:1000])
    with zipfile.ZipFile(nets / "classes.pt") as plain, zipfile.ZipFile(nets / "packed.pt", "w", 8) as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    damaged = shutil.copytree(taught, there / "damaged")
    (damaged / "args.json").write_text("{")
    shutil.copytree(taught, there / "bitflip")
    content = bytearray((there / "bitflip" / "best_acc.npy").read_bytes())
    content[1000] ^= 1
    (there / "bitflip" / "best_acc.npy").write_bytes(content)
    return there


# ------------------------------------------------------------------------------------------------- cases
# (script, flags, and for each mistake the words that its message must have). @NAME is a file of the fixture
# above, @taught the teacher's folder.

WITH_DIGITS, NPZ = " ".join(DIGITS), "--net smallcnn --device cpu --dataset npz --data_dir"
STUDENT = f"{WITH_DIGITS} --teach_type onehot"
TABLE = f"{WITH_DIGITS} --teach_type table --teach_path @tables --teach_name"
NET = f"{WITH_DIGITS} --teach_type net --teach_path @nets --teach_name"
TAUGHT = "--net smallcnn --device cpu --batch_size 50 --teach_path @taught"

CASES = [
    # names
    ("teacher", f"{WITH_DIGITS} --net resnet19", ["--net resnet19 smallcnn resnet18"]),
    ("teacher", f"{WITH_DIGITS} --dataset mnist", ["--dataset mnist cifar100 digits"]),
    ("teacher", f"{WITH_DIGITS} --scheduler linear", ["--scheduler linear cosine multi"]),
    ("student", f"{STUDENT} --scheduler linear", ["--scheduler linear cosine multi"]),
    ("comparison", f"{WITH_DIGITS} --net resnet19", ["--net resnet19 smallcnn"]),
    ("comparison", f"{WITH_DIGITS} --methods OHT GT", ["--methods GT ES-FilterKD"]),
    ("student", f"{WITH_DIGITS} --teach_type onehto", ["--teach_type onehto onehot"]),
    ("teacher", f"{WITH_DIGITS} --device tpu", ["--device tpu"]),
    ("teacher", f"{WITH_DIGITS} --ny_kind asymmetric", ["--ny_kind asymmetric pair"]),
    ("teacher", f"{WITH_DIGITS} --unheard", ["--unheard"]),
    ("teacher", f"{WITH_DIGITS} --unheard 5 --epochs 0", ["--unheard", "--epochs 0"]),
    ("teacher", f"{WITH_DIGITS} --epochs 0 --lr", ["--lr", "--epochs 0"]),
    ("teacher", f"{WITH_DIGITS} --run_name ../elsewhere", ["--run_name ../elsewhere"]),
    ("comparison", f"{WITH_DIGITS} --path /tmp/elsewhere", ["--path /tmp/elsewhere"]),
    ("teacher", f"{WITH_DIGITS} --ny_kind pair", ["--ny_kind pair --ny_ratio"]),
    ("teacher", f"{WITH_DIGITS} --ny_file @other_order.npz:worse", ["--ny_file other_order.npz clean_label"]),
    ("teacher", f"{WITH_DIGITS} --batch_size 1", ["--batch_size 1 --norm"]),
    # data that is not there
    ("teacher", "--net smallcnn --device cpu --dataset folder --data_dir @nowhere", ["--data_dir nowhere"]),
    ("teacher", "--net smallcnn --device cpu --dataset folder --data_dir @empty", ["--data_dir empty"]),
    ("teacher", "--net smallcnn --device cpu --dataset tinyimagenet --data_dir @nowhere", ["--data_dir nowhere"]),
    ("teacher", f"{NPZ} @nowhere.npz", ["--data_dir nowhere.npz"]),
    ("teacher", "--net smallcnn --device cpu --dataset npz", ["--dataset npz --data_dir"]),
    ("teacher", "--net smallcnn --device cpu --dataset folder", ["--dataset folder --data_dir"]),
    # npz files
    ("teacher", f"{NPZ} @lengths.npz --batch_size 5", ["lengths.npz 30 29"]),
    ("teacher", f"{NPZ} @broken.npz --batch_size 5", ["broken.npz"]),
    ("teacher", f"{NPZ} @text.npz --batch_size 5", ["text.npz"]),
    # noise
    ("teacher", f"{WITH_DIGITS} --ny_ratio 1.5", ["--ny_ratio 1.5 0 1"]),
    ("teacher", f"{WITH_DIGITS} --ny_ratio -0.1", ["--ny_ratio -0.1 0 1"]),
    ("teacher", f"{WITH_DIGITS} --ny_ratio nan", ["--ny_ratio nan"]),
    ("student", f"{STUDENT} --ny_ratio 2", ["--ny_ratio 2"]),
    ("comparison", f"{WITH_DIGITS} --noisy_level 10", ["--noisy_level 10 9"]),
    ("comparison", f"{WITH_DIGITS} --noisy_level -1", ["--noisy_level -1"]),
    ("comparison", f"{WITH_DIGITS} --noisy_level 0.4", ["--noisy_level 0.4"]),
    ("comparison", f"{WITH_DIGITS} --noisy_level 4 --ny_ratio 0.4", ["--noisy_level 4 --ny_ratio"]),
    ("teacher", f"{WITH_DIGITS} --ny_file @short.npy", ["--ny_file short.npy 100 1437"]),
    ("teacher", f"{WITH_DIGITS} --ny_file @eleven.npy", ["--ny_file eleven.npy 10 9"]),
    ("teacher", f"{WITH_DIGITS} --ny_file @nowhere.npy", ["--ny_file nowhere.npy"]),
    ("teacher", f"{WITH_DIGITS} --ny_file @labels.npy --ny_ratio 0.2", ["--ny_file labels.npy --ny_ratio 0.2"]),
    ("teacher", f"{WITH_DIGITS} --ny_file @terabytes.npy", ["--ny_file terabytes.npy"]),
    ("teacher", f"{WITH_DIGITS} --ny_file @marks.csv", ["--ny_file marks.csv given_label"]),
    ("teacher", f"{WITH_DIGITS} --skip_bad", ["--skip_bad digits"]),
    # numbers
    *[
        (script, f"{start} --{flag} {value}", [f"--{flag} {value}"])
        for script, start, flags in (
            ("teacher", WITH_DIGITS, ["lr", "filt_tau"]),
            ("student", STUDENT, ["tau"]),
            ("comparison", WITH_DIGITS, ["temp"]),
        )
        for flag in flags
        for value in ("0", "-1", "-1e-3", "nan", "inf", "-inf", "warm")
    ],
    *[
        ("teacher", f"{WITH_DIGITS} --{flag} {value}", [f"--{flag} {value}"])
        for flag, values in {"smoothing": ["0", "1.01", "-0.05", "nan"], "epochs": ["0", "-5", "2.5"]}.items()
        for value in values
    ],
    ("comparison", f"{WITH_DIGITS} --seeds 0", ["--seeds 0"]),
    ("student", f"{STUDENT} --ls_eps 1.5", ["--ls_eps 1.5"]),
    # sizes
    ("teacher", f"{WITH_DIGITS} --batch_size 1438", ["--batch_size 1438 1294"]),
    ("student", f"{STUDENT} --batch_size 1438", ["--batch_size 1438 1294"]),
    ("comparison", f"{WITH_DIGITS} --batch_size 1438", ["--batch_size 1438 1294"]),
    ("teacher", f"{NPZ} @good.npz", ["--batch_size 250 27"]),
    ("teacher", f"{WITH_DIGITS} --train_size 2000", ["--train_size 2000 1437"]),
    ("teacher", f"{WITH_DIGITS} --train_size 9", ["--train_size 9 10"]),
    ("teacher", f"{WITH_DIGITS} --valid_size 1437", ["--valid_size 1437"]),
    ("teacher", f"{WITH_DIGITS} --image_size 32", ["--image_size 32"]),
    # networks that do not fit
    ("teacher", "--dataset digits --device cpu --net vgg", ["--net vgg 32 8"]),
    ("teacher", "--dataset digits --device cpu --net resnet18 --width 2", ["--width 2 smallcnn"]),
    # teachers
    ("student", f"{WITH_DIGITS} --teach_path nowhere", ["--teach_path nowhere"]),
    ("student", f"{TAUGHT} --teach_name epoch_178", ["--teach_name epoch_178 best_acc"]),
    ("student", f"{WITH_DIGITS} --teach_path @damaged", ["args.json"]),
    ("student", f"{TABLE} shape", ["shape.npy (1437, 100) (1437, 10)"]),
    ("student", f"{TABLE} nan", ["nan.npy"]),
    ("student", f"{TABLE} cut", ["cut.npy"]),
    ("student", f"{TABLE} best_acc --ny_ratio 0.4 --data_seed 2 --train_size 200 --batch_size 50", ["best_acc.npy"]),
    (
        "student",
        "--net smallcnn --device cpu --batch_size 50 --teach_path @bitflip --teach_type table",
        ["best_acc.npy"],
    ),
    ("student", f"{NET} preact", ["preact.pt --net"]),
    ("student", f"{NET} classes", ["classes.pt 100 10"]),
    ("student", f"{NET} classes --teach_net resnet18", ["classes.pt --net"]),
    ("student", f"{NET} cut", ["cut.pt"]),
    ("student", f"{NET} packed", ["packed.pt"]),
    ("student", f"{TAUGHT} --teach_net resnet18", ["--teach_net resnet18 smallcnn"]),
    ("student", f"{WITH_DIGITS} --teach_type true", ["--true_probs"]),
    ("student", f"{WITH_DIGITS} --teach_type true --true_probs @nowhere.npy", ["--true_probs nowhere.npy"]),
    ("student", f"{WITH_DIGITS} --teach_type true --true_probs @probs_short.npy", ["probs_short.npy (10, 10)"]),
    ("student", f"{WITH_DIGITS} --teach_type true --true_probs @logits.npy", ["logits.npy"]),
    # teacher and student contradict each other
    ("student", f"{TAUGHT} --ny_ratio 0.2", ["--ny_ratio 0.2 0.4"]),
    ("student", f"{TAUGHT} --dataset cifar10", ["--dataset cifar10 digits"]),
    ("student", f"{TAUGHT} --data_seed 2", ["--data_seed 2 1"]),
    ("student", f"{TAUGHT} --train_size 100 --valid_size 0", ["--train_size 100 200"]),
    # wrong values come together, and before all else
    ("teacher", f"{WITH_DIGITS} --lr 0 --net resnet19", ["--lr 0", "--net resnet19"]),
    ("teacher", f"{WITH_DIGITS} --batch_size 2000 --width 0 --unheard", ["--width 0", "--unheard"]),
    ("student", f"{TAUGHT} --ny_ratio 0.2 --lr -1", ["--lr -1"]),
    ("comparison", f"{WITH_DIGITS} --noisy_level 12 --temp 0", ["--noisy_level 12", "--temp 0"]),
    (
        "teacher",
        "--dataset digits --net resnet19 --lr 0 --epochs -1 --ny_ratio 2 --scheduler x --smoothing 0 --amp fp8",
        ["--net resnet19", "--lr 0", "--epochs -1", "--ny_ratio 2", "--scheduler x", "--smoothing 0", "--amp fp8"],
    ),
    ("teacher", f"{WITH_DIGITS} --ny_file= --epochs 1", ["--ny_file"]),
    ("student", f"{WITH_DIGITS} --ny_file= --epochs 1 --teach_path=", ["--ny_file", "--teach_path"]),
    # of what comes after, the first
    ("teacher", f"{WITH_DIGITS} --width 2 --net resnet18 --ny_file @short.npy", ["--width 2"]),
    ("teacher", f"{NPZ} @lengths.npz --batch_size 1", ["--batch_size 1"]),
]


def resolve(flags, files, taught):
    """The argument list: @taught and @NAME become paths."""
    return [
        str(taught) if flag == "@taught" else str(files / flag[1:]) if flag.startswith("@") else flag
        for flag in flags.split()
    ]


def check_messages(err, mistakes):
    """Every mistake has its line or two, with the words it must have; there is nothing else."""
    assert "Traceback" not in err and "usage:" not in err
    lines = err.splitlines()
    starts = [n for n, line in enumerate(lines) if line.startswith("error: ")]
    messages = ["\n".join(lines[a:b]) for a, b in zip(starts, [*starts[1:], len(lines)], strict=True)]
    assert starts[:1] == [0] and len(messages) == len(mistakes), err
    assert all(message.count("\n") <= 1 for message in messages)
    for words in mistakes:
        assert any(all(word in message for word in words.split(" ")) for message in messages), (words, err)


@pytest.mark.parametrize("script, flags, mistakes", CASES, ids=[f"{s} {f}" for s, f, _ in CASES])
def test_a_mistake_is_answered_in_a_line_or_two_and_nothing_is_written(
    script, flags, mistakes, files, taught, workplace, capsys
):
    with pytest.raises(SystemExit) as found:
        errors.run_script(lambda: SCRIPTS[script].main(resolve(flags, files, taught)))
    assert found.value.code == 2
    out, err = capsys.readouterr()
    warnings = [line for line in err.splitlines() if line.startswith("warning: ")]  # about files without a run folder
    check_messages("\n".join(line for line in err.splitlines() if line not in warnings), mistakes)
    assert out == ""
    assert not os.listdir(workplace)


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("wrong", ["--lr 0", "--batch_size 9999"])
def test_check_answers_mistakes_as_a_run_does(script, wrong, workplace, capsys):
    flags = [*DIGITS, "--check", *(["--teach_type", "onehot"] * (script == "student")), *wrong.split()]
    with pytest.raises(SystemExit) as found:
        errors.run_script(lambda: SCRIPTS[script].main(flags))
    assert found.value.code == 2
    check_messages(capsys.readouterr().err, [wrong])


def test_a_mistake_never_starts_a_download(workplace, monkeypatch, capsys):
    import torchvision

    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", lambda self: pytest.fail("a download was started"))
    for flags in ("--lr 0", "--batch_size 50000", "--net smallcnn --width 0", "--ny_ratio 2", "--run_name taken"):
        Path("results/Gen_teacher/resnet18taken").mkdir(parents=True, exist_ok=True)
        Path("results/Gen_teacher/resnet18taken/args.json").write_text("{}")
        with pytest.raises(SystemExit) as found:
            errors.run_script(lambda flags=flags: main_gen_teacher.main(["--device", "cpu", *flags.split()]))
        assert found.value.code == 2
        assert capsys.readouterr().err.startswith("error: ")


def test_a_taken_name_is_a_mistake_and_what_was_there_stays(workplace, capsys):
    taken = workplace / "results" / "Gen_teacher" / "smallcnndigits_cosine"
    taken.mkdir(parents=True)
    (taken / "args.json").write_text("{}")
    with pytest.raises(SystemExit) as found:
        errors.run_script(lambda: main_gen_teacher.main(DIGITS))
    assert found.value.code == 2
    check_messages(capsys.readouterr().err, ["smallcnndigits_cosine --overwrite"])
    assert [p.name for p in taken.iterdir()] == ["args.json"]


def test_a_run_that_diverges_fails_in_a_line_with_exit_code_one(quick, workplace, capsys):
    with pytest.raises(SystemExit) as found:
        errors.run_script(lambda: main_gen_teacher.main(quick("--lr", 1e30)))
    assert found.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and "--lr" in line


# ------------------------------------------------------------------------------------- all flags of all scripts

PARSERS = {
    script.__name__: script.make_parser()
    for script in (main_gen_teacher, main_distill, main_gen_path, cifar10h_gen_path, old_cifar_noisy)
    + (evaluate, analyze_paths, download, refolder_tiny_imagenet)
}
FLAGS = [(script, action) for script, parser in PARSERS.items() for action in parser._actions if action.nargs != 0]


def parse(script, action, value):
    """(args, mistakes) of a script's one flag, or of its one argument without a name."""
    nameless = ["cifar10h"] if any(not other.option_strings for other in PARSERS[script]._actions) else []
    given = [*nameless, f"{action.option_strings[-1]}={value}"] if action.option_strings else [value]
    try:
        return PARSERS[script].parse_args(given), []
    except errors.BadInput as found:
        return None, found.messages


@pytest.mark.parametrize("value", ["", "  "])
@pytest.mark.parametrize("script, action", FLAGS, ids=[f"{script} {action.dest}" for script, action in FLAGS])
def test_an_empty_value_of_any_flag_is_a_mistake(script, action, value):
    _, messages = parse(script, action, value)
    (message,) = [message for message in messages if action.dest in message.split(":")[0]]


@pytest.mark.parametrize("script, action", FLAGS, ids=[f"{script} {action.dest}" for script, action in FLAGS])
def test_a_tilde_is_the_home_folder_in_every_flag_that_takes_text(script, action, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    args, messages = parse(script, action, "~/x.npz")
    if action.type is None:
        assert getattr(args, action.dest) == "/home/someone/x.npz"
    else:  # a number, a name, one of some
        assert messages


@pytest.mark.parametrize("script", PARSERS)
def test_a_wrong_flag_gets_a_word_of_advice(script):
    for action in PARSERS[script]._actions:
        for flag in action.option_strings[-1:]:
            with pytest.raises(errors.BadInput) as found:
                PARSERS[script].parse_args([f"{flag}_", "cifar10h", "cifar10h"])
            (message,) = [message for message in found.value.messages if message.startswith(f"{flag}_:")]
            assert flag in message.split(":", 1)[1]


# ------------------------------------------------------------------------------------------- as programs


@pytest.mark.parametrize(
    "script, flags, mistakes",
    [
        ("main_distill.py", "--ls_eps 2 --tau -1", ["--ls_eps 2", "--tau -1"]),
        ("main_distill.py", "--teach_path nowhere", ["--teach_path nowhere"]),
        ("old_cifar_noisy.py", "--dataset digits --noisy_level 11", ["--noisy_level 11"]),
    ],
)
def test_as_a_program_too(script, flags, mistakes, workplace):
    done = subprocess.run([sys.executable, REPOSITORY / script, *flags.split()], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    check_messages(done.stderr, mistakes)
    assert not os.listdir(workplace)
