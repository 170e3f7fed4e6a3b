"""Malformed flags and files, made from valid ones by chance: each is told in a line that names the flag or the file,
with exit code 2 (or 1, found while running), and everything in the folder stays as it was.

Some of what chance makes is valid after all (a label changed to another one): then the script must work.
"""

import csv
import io
import json
import os
import pickle
import random
import re
import shutil
import zipfile
from collections import Counter
from importlib import import_module

import numpy as np
import pytest
import torch
from PIL import Image

from common import flags
from tests.faults import runs
from tests.faults.calls import Copy, call
from tests.faults.chain import CHAIN

MALFORMED = int(os.environ.get("FAULTS_MALFORMED", 60))
QUICK = "--batch_size 50 --run_name new --net smallcnn --lr 0.05 --epochs 1 --device cpu --amp off".split()
DIGITS = [*"--dataset digits --train_size 200".split(), *QUICK]
HUMAN = [*"--dataset digits".split(), *QUICK]
STUDENT = [*"--proj_name new".split(), *QUICK]


# ------------------------------------------------------------------------------------------------ valid inputs


def write_inputs(folder):
    """One valid file of each kind, in a folder in which the chain ran."""
    from data.datasets import digits

    data = digits(None)
    labels = np.where(np.arange(1437) % 5 == 0, (data.train.labels + 1) % 10, data.train.labels)
    np.save(folder / "labels.npy", labels)
    np.savez(folder / "labels.npz", clean_label=data.train.labels, worse_label=labels)
    torch.save({"clean_label": data.train.labels, "worse_label": torch.from_numpy(labels)}, folder / "labels.pt")
    with open(folder / "labels.csv", "w", newline="") as f:
        csv.writer(f).writerows([("idx", "label"), *enumerate(labels.tolist())])
    images, y = data.train.images[:60, ..., 0].numpy(), np.arange(60) % 3
    names = {"class_names": np.array(["a", "b", "c"])}
    np.savez(
        folder / "data.npz", train_images=images, train_labels=y, test_images=images[:20], test_labels=y[:20], **names
    )
    for number, (pixels, label) in enumerate(zip(images, y, strict=True)):
        place = folder / "images" / ("train" if number < 45 else "test") / "abc"[label] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place)
    np.save(folder / "true.npy", np.float32(0.9) * np.eye(10, dtype=np.float32)[data.train.labels] + np.float32(0.01))
    shutil.copy(folder / "probs.npy", folder / "human.npy")
    path = np.random.default_rng(0).dirichlet(np.ones(3), (60, 4)).astype(np.float16)
    np.save(folder / "path.npy", path)
    np.save(folder / "given.npy", y)
    np.save(folder / "pictures.npy", images)
    np.save(folder / "truth.npy", np.eye(3, dtype=np.float32)[y])
    (folder / "names.txt").write_text("a\nb\nc\n")
    with zipfile.ZipFile(folder / "tiny.zip", "w") as pack:
        for name in ("train/n1/images/n1_0.JPEG", "val/images/val_0.JPEG", "val/val_annotations.txt"):
            pack.writestr(f"tiny-imagenet-200/{name}", "val_0.JPEG\tn1\t0\t0\t1\t1\n")


FOREIGN = "path.npy --labels given.npy --out new".split()
USES = {  # of each kind of file: a command that reads it
    "labels.npy": ("main_gen_teacher", [*DIGITS, "--ny_file", "labels.npy"]),
    "labels.npz": ("main_gen_teacher", [*DIGITS, "--ny_file", "labels.npz:worse"]),
    "labels.pt": ("main_gen_teacher", [*DIGITS, "--ny_file", "labels.pt:worse"]),
    "labels.csv": ("main_gen_teacher", [*DIGITS, "--ny_file", "labels.csv"]),
    "data.npz": ("main_gen_teacher", [*QUICK, "--dataset", "npz", "--data_dir", "data.npz", "--batch_size", 20]),
    "true.npy": ("main_distill", [*DIGITS, "--teach_type", "true", "--true_probs", "true.npy"]),
    "human.npy": ("cifar10h_gen_path", [*HUMAN, "--human_probs", "human.npy"]),
    "path.npy": ("analyze_paths", FOREIGN),
    "given.npy": ("analyze_paths", FOREIGN),
    "pictures.npy": ("analyze_paths", [*FOREIGN, "--images", "pictures.npy"]),
    "truth.npy": ("analyze_paths", [*FOREIGN, "--true_probs", "truth.npy"]),
    "names.txt": ("analyze_paths", [*FOREIGN, "--class_names", "names.txt"]),
    "tiny.zip": ("data.download", "tinyimagenet --data_dir new --url file:tiny.zip".split()),
}
ARRAYS = [name for name in USES if name.endswith(".npy")]
FOLDER = [*QUICK, *"--dataset folder --data_dir images --image_size 8 --batch_size 10 --num_work 0".split()]


# --------------------------------------------------------------------------------------------- malformed flags
# Each of what follows is called with a random.Random and the folder, damages what is there, and returns script, flags,
# and whether that is malformed beyond doubt.

VALUES = {
    flags.positive: "0 -1 -1e-3 nan inf -inf warm 1e999 0x10",
    flags.not_negative: "-0.1 nan inf much",
    flags.share: "1.01 -0.5 nan half 1,5",
    flags.open_share: "0 1.01 -0.05 nan all",
    flags.count: "0 -5 2.5 1e3 ten nan",
    flags.whole: "-1 0.5 1e3 first inf",
    flags.name: "a/b ../up / .. . a\\b",
}


def bad_value(draw, folder):
    script = draw.choice([*runs.RUNS, "evaluate", "analyze_paths"])
    start = {"evaluate": [runs.TEACHER], "analyze_paths": [runs.PATHS]}.get(script, DIGITS)
    actions = import_module(script).make_parser()._actions
    action = draw.choice([a for a in actions if a.type in VALUES or str(a.metavar).startswith("{")])
    value = draw.choice(VALUES.get(action.type, "nonsense RESNET18 auto,cpu -").split())
    more = ["--teach_type", "onehot"] if script == "main_distill" and action.dest != "teach_type" else []
    return script, [*start, *more, f"{action.option_strings[-1]}={value}"], True


CONTRADICTIONS = {  # a case a line
    "main_gen_teacher": """
        --ny_file labels.npy --ny_ratio 0.2
        --ny_file labels.npz
        --ny_file labels.npz:best
        --ny_file labels.npy:key
        --ny_file images
        --ny_file true.npy
        --ny_file human.npy
        --ny_file=
        --ny_kind pair
        --batch_size 500
        --batch_size 1
        --train_size 5
        --train_size 3000
        --valid_size 200
        --valid_size 1.5
        --image_size 32
        --net resnet18 --width 2
        --net vgg
        --width 1000000
        --pretrained
        --resume --overwrite
        --amp fp16
        --device tpu
        --unheard 5
        --lr
        --lr 1e39
        --weight_decay 1e39
        --epochs 0 --lr -1
        --skip_bad
        --dataset npz
        --dataset npz --data_dir nowhere
        --dataset npz --data_dir labels.npz
        --dataset npz --data_dir labels.npy
        --dataset folder
        --dataset folder --data_dir images/train
        --dataset tinyimagenet --data_dir images/test
        --proj_name results/x
        surplus""",
    "main_distill": """
        --teach_type true
        --teach_type true --true_probs human.npy
        --teach_type true --true_probs nowhere
        --teach_path nowhere
        --teach_path images
        --teach_path TEACHER --teach_name last
        --teach_path TEACHER --teach_name epoch_77
        --teach_path TEACHER --teach_net resnet18
        --teach_path TEACHER --ny_ratio 0.3
        --teach_path TEACHER --data_seed 7
        --teach_path TEACHER --train_size 100
        --teach_path TEACHER --dataset npz --data_dir data.npz
        --teach_path TEACHER --dataset npz --data_dir data.npz --teach_type table
        --teach_path PATHS --teach_type table
        --teach_path COMPARISON""",
    "main_gen_path": """
        --fine_samples 500
        --fine_every 0
        --path_dtype int8
        --record all""",
    "cifar10h_gen_path": """
        --human_probs true.npy
        --human_probs nowhere
        --human_probs labels.npy
        --human_probs images""",
    "old_cifar_noisy": """
        --noisy_level 4 --ny_ratio 0.4
        --noisy_level 10
        --methods OHT GT
        --seeds 0""",
    "evaluate": """
        nowhere
        images
        COMPARISON
        TEACHER PATHS
        TEACHER --device tpu
        TEACHER --checkpoint last
        TEACHER --checkpoint nothing
        TEACHER --images images
        TEACHER --out x.csv
        TEACHER --images labels.npy --out x.csv
        TEACHER --images images --out nowhere/x.csv""",
    "analyze_paths": """
        nowhere
        TEACHER
        COMPARISON
        PATHS --labels given.npy
        PATHS --idx 99999
        PATHS --idx a,b
        PATHS --idx -1
        PATHS --compare HUMAN
        PATHS --compare TEACHER
        PATHS --out images
        PATHS --out nowhere/x
        PATHS --export excel
        path.npy
        path.npy --out new
        path.npy --labels given.npy
        path.npy --labels labels.npy --out new
        path.npy --labels given.npy --out new --data_dir images
        path.npy --labels given.npy --out new --images images/test
        path.npy --labels given.npy --out new --images given.npy
        path.npy --labels given.npy --out new --true_probs true.npy
        path.npy --labels given.npy --out new --class_names labels.csv
        labels.npy --labels given.npy --out new""",
    "data.download": """
        imagenet
        tinyimagenet --url tiny.zip
        tinyimagenet --data_dir labels.npy
        cifar10h --data_dir path.npy""",
}


def contradiction(draw, folder):
    script = draw.choice(list(CONTRADICTIONS))
    start = {
        "main_gen_teacher": DIGITS,
        "main_distill": STUDENT,
        "main_gen_path": DIGITS,
        "cifar10h_gen_path": HUMAN,
        "old_cifar_noisy": DIGITS,
    }
    words = draw.choice(CONTRADICTIONS[script].split("\n")[1:]).split()
    return script, [*start.get(script, []), *(getattr(runs, word, word) for word in words)], True


OTHERS = {  # flags that are in no run's name
    "main_gen_teacher": "lr=0.1 batch_size=40 momentum=0.5 seed=1 epochs=5 weight_decay=0 smoothing=0.1 filt_tau=2 "
    "valid_size=0.2 train_size=200 data_seed=3 augment=none norm=group warmup=1 amp=bf16 ny_kind=pair save_epochs=2",
    "main_distill": "lr=0.1 tau=2 smoothing=0.5 epochs=9 batch_size=60 net=resnet18 momentum=0 data_seed=5 width=2",
    "main_gen_path": "fine_every=3 fine_samples=20 path_dtype=float32 record=eval lr=0.01 epochs=3 compile=on",
    "cifar10h_gen_path": "fine_every=3 fine_samples=20 path_dtype=float32 human_probs=true.npy seed=2 train_size=300",
    "old_cifar_noisy": "seeds=3 epochs=3 temp=2 ls_eps=0.2 ny_ratio=0.2 methods=LS smoothing=0.1 epochs=1 seed=9 "
    "scheduler=multi net=resnet18",
}


def contradiction_of_the_run(draw, folder):
    script = draw.choice(list(OTHERS))
    flag, value = draw.choice(OTHERS[script].split()).split("=")
    return script, [*CHAIN[script], "--resume", f"--{flag}", value], True


# ----------------------------------------------------------------------------------------------- malformed files


def odd_array(draw, array):
    """An array that takes a valid one's place, and is none."""
    if array.dtype.kind == "U":
        array = np.arange(len(array))
    floats = array.astype(np.float64)
    changed = floats.copy()
    changed.flat[draw.randrange(changed.size)] = draw.choice([np.nan, np.inf, -np.inf, -1, 1e9, 0.5, 77])
    return draw.choice(
        [
            *(changed, array[: draw.randrange(len(array))], array[:0], np.concatenate([array, array[:1]]), array[None]),
            *(array.astype(kind) for kind in (object, "U8", complex, "S3", "M8[s]")),
            *(np.array(3), floats - 1, array * 0 - 5, np.zeros((0, 10)), np.full(array.shape, 999)),
            *(np.array([{"a": 1}], object), np.zeros(len(array), [("a", "i4")]), np.moveaxis(array, 0, -1)[None]),
        ]
    )


def _npy(array):
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


def array_file(draw, folder):
    name = draw.choice(ARRAYS)
    (folder / name).write_bytes(_npy(odd_array(draw, np.load(folder / name))))
    return *USES[name], False


def header(draw, folder):
    """A .npy whose header says something else than what follows."""
    name = draw.choice(ARRAYS)
    content = (folder / name).read_bytes()
    length = 10 + int.from_bytes(content[8:10], "little")
    shape = draw.choice(["(99999999999, 99)", "(-1,)", "(3,)", "()", "'x'", "(1437, 10, 0)", "(9" + "9" * 50 + ",)"])
    dtype = draw.choice(["<f4", "<i8", "|O", "<f9", "junk", "|V0", "<U9"])
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(length - 11) + "\n"
    (folder / name).write_bytes(content[:8] + len(text).to_bytes(2, "little") + text.encode() + content[length:])
    return *USES[name], True


def scrambled(draw, folder):
    """Bytes changed, put in, taken out, or of another kind altogether."""
    name = draw.choice(list(USES))
    content = bytearray((folder / name).read_bytes())
    place, kind = draw.randrange(len(content)), draw.randrange(6)
    if kind == 0:
        content[place : place + 8] = draw.randbytes(8)
    elif kind == 1:
        content[place:place] = draw.randbytes(draw.randrange(1, 99))
    elif kind == 2:
        del content[place : place + draw.randrange(1, 99)]
    elif kind == 3:
        del content[place:]
    elif kind == 4:
        content = draw.randbytes(300)
    else:
        other = draw.choice([other for other in USES if other != name])
        content = (folder / other).read_bytes()
    (folder / name).write_bytes(content)
    return *USES[name], False


class Malicious:
    def __reduce__(self):
        return (os.system, ("touch unpickled",))


def pickled(draw, folder):
    name, bad = draw.choice(["labels.pt", "labels.pt", "labels.npy", "data.npz", "true.npy", "path.npy"]), Malicious()
    if name.endswith(".pt"):
        content = draw.choice([pickle.dumps(bad), pickle.dumps({"worse_label": bad})])
        out = io.BytesIO()
        torch.save({"worse_label": bad}, out)
        (folder / name).write_bytes(draw.choice([content, out.getvalue()]))
    elif name.endswith(".npz"):
        np.savez(folder / name, train_images=np.array([bad], object))
    else:
        (folder / name).write_bytes(draw.choice([pickle.dumps(bad), _npy(np.array([bad], object))]))
    return *USES[name], True


def label_dictionary(draw, folder):
    """labels.pt or labels.npz with other things in it than labels under names."""
    labels = np.load(folder / "labels.npy")
    things = [{}, {"worse_label": {}}, {"worse": None}, {5: labels}, [labels], None, "text", {"worse_label": "x"}, 7.5]
    things += [{"worse_label": odd} for odd in (labels[:9], labels * 7, labels / 7, [1, [2]], [labels.tolist()], True)]
    things += [{"worse_label": torch.from_numpy(labels).to_sparse()}, {"other": labels, "more": labels}]
    torch.save(draw.choice(things), folder / "labels.pt")
    return *USES["labels.pt"], True


def label_table(draw, folder):
    """labels.csv with lines that are wrong."""
    lines = (folder / "labels.csv").read_text().splitlines()
    place = draw.randrange(1, len(lines))
    odd = (
        "",
        ",",
        "1,2,3,4",
        "x,1",
        "3,x",
        "-1,1",
        "99999,1",
        "5",
        '"',
        "\0,1",
        "1e3,2",
        "²,1",
        "3,²",
        "7,99",
        "7,-1",
        "7,1.5",
    )
    header = draw.choice(["", "idx;label", "label", "idx,path", "a,b", "idx,idx", "path,label"])
    found = draw.choice(
        [
            "\n".join([*lines[:place], draw.choice(odd), *lines[place + 1 :]]),
            "\n".join([*lines[:place], draw.choice(lines[1:]), *lines[place + 1 :]]),
            "\n".join(lines[:place]),
            "\n".join([header, *lines[1:]]),
            "\n".join([*lines, lines[place]]),
            "\n".join(lines).replace(",", ";"),
            "idx,label\n" + "9" * 200_000,
            "",
        ]
    )
    encoding = draw.choice(["utf-8", "utf-8", "utf-8", "utf-16"])
    (folder / "labels.csv").write_bytes(found.encode(encoding) + draw.choice([b"", b"", b"\xff\xfe"]))
    return *USES["labels.csv"], False


def npz_data(draw, folder):
    """data.npz with one array wrong, or none of it."""
    with np.load(folder / "data.npz") as file:
        arrays = dict(file)
    name = draw.choice(list(arrays))
    kind = draw.randrange(4)
    if kind == 0 and name != "class_names":
        del arrays[name]
    elif kind == 1:
        names = [
            np.array(names) for names in ([], ["a"], ["a", "b"], [["a", "b", "c"]], 3, [0.5, 1, 2], [b"a", b"b", b"c"])
        ]
        arrays["class_names"] = draw.choice(names)
    else:
        odd = odd_array(draw, arrays[name])
        arrays[name] = odd.astype(np.uint8) if kind == 3 and odd.dtype.kind in "fi" else odd
    np.savez(folder / "data.npz", **arrays)
    return *USES["data.npz"], kind == 0 and name != "class_names"


def image_folder(draw, folder):
    root = folder / "images"
    file = draw.choice(sorted(root.rglob("*.png")))
    content = file.read_bytes()

    def replace(data):
        file.write_bytes(data)

    def image(mode, size, kind="PNG"):
        out = io.BytesIO()
        Image.new(mode, size).save(out, kind)
        return out.getvalue()

    wrong = [
        lambda: replace(content[: len(content) // 2]),
        lambda: replace(b""),
        lambda: replace(b"not an image"),
        lambda: replace(content[:16] + (10**6).to_bytes(4, "big") * 2 + content[24:]),
        lambda: replace(image("F", (8, 8), "TIFF")),
        lambda: (file.unlink(), file.symlink_to("nowhere.png")),
        lambda: (file.unlink(), file.symlink_to(file.name)),
        lambda: (file.unlink(), file.mkdir()),
        lambda: shutil.rmtree(root / "test"),
        lambda: shutil.rmtree(root / "train"),
        lambda: (shutil.rmtree(root / "train" / "a"), (root / "train" / "a").mkdir()),
        lambda: (root / "test" / "d").mkdir(),
        lambda: shutil.copytree(root / "test" / "a", root / "test" / "d"),
        lambda: (shutil.rmtree(root / "train" / "b"), shutil.rmtree(root / "train" / "c")),
        lambda: [f.unlink() for f in (root / "test").rglob("*.png")],
    ]
    fine = [
        lambda: replace(image("RGB", (50, 9), "JPEG")),
        lambda: replace(image("1", (8, 8))),
        lambda: replace(image("P", (1, 1))),
        lambda: replace(image("RGBA", (8, 8), "GIF")),
        lambda: replace(content + b"surplus"),
        lambda: (file.parent / "._x.png").write_bytes(b"of macOS"),
        lambda: (root / "train" / "notes.txt").write_text("x"),
    ]
    is_wrong = draw.random() < 0.8
    draw.choice(wrong if is_wrong else fine)()
    script = draw.choice(["main_gen_teacher", "main_gen_path"])
    return script, FOLDER, False


def archive(draw, folder):
    with zipfile.ZipFile(folder / "tiny.zip", "a") as pack:
        link = zipfile.ZipInfo("tiny-imagenet-200/link")
        link.external_attr = 0o120777 << 16
        draw.choice(
            [
                lambda: pack.writestr("../outside", "x"),
                lambda: pack.writestr("/tmp/outside", "x"),
                lambda: pack.writestr("tiny-imagenet-200/../../outside", "x"),
                lambda: pack.writestr(link, "/etc/passwd"),
                lambda: pack.writestr("C:\\x", "x"),
            ]
        )()
    return *USES["tiny.zip"], False  # zipfile unpacks such a member inside the folder, a link as a file


# ---------------------------------------------------------------------------------------- malformed run folders

ODD = [None, [], {}, "", "x", -1, 0, 1e308, True, "resnet999", 10**30, [1, 2], {"a": {}}, "../..", float("nan"), 0.5]
RESUMES = [(run / "last.pt", runs.resume(script)) for script, run in runs.RUNS.items() if script != "old_cifar_noisy"]


def read_file(draw, *endings):
    return draw.choice([(file, command) for file, command in runs.READ if file.name.endswith(endings)])


def without_checksums(file):
    """So that what the file itself says has to tell."""
    (file.parent / "checksums.json").unlink(missing_ok=True)


def json_of_a_run(draw, folder):
    """A key taken away, or one with an odd value."""
    name, command = read_file(draw, "args.json", "environment.json", "result.json", "E.json", "_acc.json", "_3.json")
    if name.name not in ("environment.json", "result.json"):  # of which the checksums alone tell odd values
        without_checksums(folder / name)
    content = json.loads((folder / name).read_text())
    content.pop("crc32", None)
    place = draw.choice([content, *[v for v in content.values() if isinstance(v, dict) and v]])
    key = draw.choice(sorted(place))
    if draw.random() < 0.4:
        del place[key]
    else:
        place[key] = draw.choice(ODD)
    (folder / name).write_text(json.dumps(content))
    return *split(command), False


def no_json(draw, folder):
    name, command = read_file(draw, "args.json", "environment.json", "result.json", "checksums.json")
    (folder / name.parent / "checksums.json").unlink()
    text = draw.choice(["", "[]", "null", "1", "{", '{"a": NaN', "[" * 100_000, '"x"', "\ufeff{}", "{'a': 1}"])
    (folder / name).write_bytes(draw.choice([text.encode(), b"\xff\xfe\x00", text.encode("utf-16")]))
    return *split(command), True


def lost_file(draw, folder):
    name, command = draw.choice(runs.READ + 3 * RESUMES)
    (folder / name).unlink()
    return *split(command), name.name in ("last.pt", "args.json", "labels.npz")


def file_of_another_run(draw, folder):
    """With its .json or without, with the checksums that would give it away or without."""
    name, command = draw.choice([read_file(draw, ".pt", ".npy", ".npz", ".json"), *RESUMES[:2]])
    mine = folder / name
    others = [f for f in (folder / "results").rglob(f"*{mine.suffix}") if f.parent != mine.parent]
    alike = [f for f in others if f.name == mine.name]
    other = draw.choice(sorted(draw.choice([alike or others, others])))
    changes, with_sums = other.read_bytes() != mine.read_bytes(), draw.random() < 0.5
    shutil.copyfile(other, mine)
    if mine.suffix == ".npy" and draw.random() < 0.6 and other.with_suffix(".json").exists():
        shutil.copyfile(other.with_suffix(".json"), mine.with_suffix(".json"))
    if not with_sums:
        without_checksums(mine)
    listed = with_sums and mine.suffix in (".pt", ".json") and mine.name in ("args.json", "environment.json", "last.pt")
    return *split(command), changes and (mine.suffix == ".npz" or listed)


def split(command):
    return command[0], list(command[1:])


FAMILIES = [
    *(bad_value, contradiction, contradiction_of_the_run, array_file, header, scrambled, pickled, label_dictionary),
    *(label_table, npz_data, image_folder, archive, json_of_a_run, no_json, lost_file, file_of_another_run),
]
NAMED = re.compile(
    r"(the teacher in )?(--\w+|[\w./\\-]*[./]\S*|\S*:|RUN_DIR|argument \S+|the following arguments|dataset)"
)


def problem_with(code, err, certain):
    """What is wrong with the answer to something malformed, or None."""
    lines = [line for line in err.splitlines() if not line.startswith("warning: ")]
    starts = [line for line in lines if line.startswith("error: ")]
    if code is None:
        return "a traceback"
    if code == 0:
        return "it was taken" if certain else "an error" if starts else None
    if code not in (1, 2) or not starts or len(lines) > 2 * len(starts):
        return "not told in a line or two each"
    for line in starts:
        if not NAMED.match(line.removeprefix("error: ")):
            return "neither a flag nor a file is named"
    return None


@pytest.fixture(scope="module")
def lab(undisturbed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab") / "lab"
    shutil.copytree(undisturbed[0], folder, ignore=shutil.ignore_patterns("*.png", "*.out"))
    write_inputs(folder)
    return folder


def answer_to(family, draw, copy):
    """Let a family damage the copy, and a script look at it: (exit code, what is wrong with that or None, in words)."""
    script, flags, certain = family(draw, copy.folder)
    damaged = contents(copy)
    code, _, err = call(script, flags, copy.folder)
    found = problem_with(code, err, certain)
    if code and not found:
        written = written_since(damaged, copy)
        found = f"{written} written" if written else None
    copy.mend()
    where = f"{family.__name__}: {script} {' '.join(map(str, flags))}; {sorted(damaged)}"
    return code, found, f"{where}\n  {code} {err[-700:]}"


def contents(copy):
    """{name: what is there instead} of what is not as in the original."""
    return {name: _content(copy.folder / name) for name in copy.changed()}


def _content(path):
    return os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else path.exists()


def written_since(damaged, copy):
    """Names of what is otherwise than it was when contents() were `damaged`."""
    now = contents(copy)
    written = [name for name in damaged.keys() | now.keys() if damaged.get(name, "whole") != now.get(name, "whole")]
    # An archive was fetched, and is kept; checksums that were taken away may be listed again.
    allowed = {"new", "new/tiny-imagenet-200.zip", *(name for name in damaged if name.endswith("checksums.json"))}
    return [name for name in written if name not in allowed]


def test_what_is_malformed_is_told_in_a_line_and_nothing_is_written(lab, tmp_path, no_drawing, tell):
    copy, draw, counts, wrong, number = Copy(lab, tmp_path / "copy"), random.Random(0), Counter(), [], 0
    while counts["told"] + counts["wrong"] < MALFORMED:
        code, found, words = answer_to(FAMILIES[number % len(FAMILIES)], draw, copy)
        counts["wrong" if found else "told" if code else "valid"] += 1
        wrong += [f"{found}: {words}"] if found else []
        number += 1
    tell("malformed inputs told", f"{counts['told']} of {MALFORMED}; {counts['valid']} that were valid worked")
    assert not wrong, "\n".join([f"{len(wrong)} of {MALFORMED}:", *wrong])


OHT = runs.COMPARISON / "seed_10086" / "OHT"
SWAPPED = {
    "a table of labels with other noise": (OHT, runs.TEACHER, ["best_acc.npy"], runs.teach("table", "best_acc")),
    "and its .json": (OHT, runs.TEACHER, ["best_acc.npy", "best_acc.json"], runs.teach("table", "best_acc")),
    "labels of another run": (runs.TEACHER, runs.PATHS, ["labels.npz"], runs.analyze(runs.PATHS)),
    "labels of another split": (runs.HUMAN, runs.PATHS, ["labels.npz"], runs.analyze(runs.PATHS)),
    "last.pt without paths": (runs.TEACHER, runs.PATHS, ["last.pt"], runs.resume("main_gen_path")),
    "last.pt with other paths": (runs.PATHS, runs.HUMAN, ["last.pt"], runs.resume("cifar10h_gen_path")),
}


@pytest.mark.parametrize("with_checksums", [True, False])
@pytest.mark.parametrize("what", SWAPPED)
def test_what_belongs_to_another_run_is_refused(what, with_checksums, lab, tmp_path, no_drawing):
    giver, taker, names, command = SWAPPED[what]
    copy = Copy(lab, tmp_path / "copy")
    for name in names:
        shutil.copyfile(copy.folder / giver / name, copy.folder / taker / name)
    if not with_checksums:
        (copy.folder / taker / "checksums.json").unlink()
    damaged = contents(copy)
    code, _, err = call(command[0], command[1:], copy.folder)
    assert code == 2 and f"{taker}/{names[0]}: " in err, err
    assert written_since(damaged, copy) == []
