"""One bit flipped, or the end cut off, in any file of a finished run: whatever reads the file says so, by its name.

The only other outcome: what changed is of no account (a space in a .json, a date in an archive), and all is as before.
metrics.csv, results.csv, results.txt and the pictures are written by the scripts, and read by people alone; so is
labels.npz, but for the runs that recorded paths.
"""

import os
import random
import shutil
from collections import Counter

import pytest

from common.errors import BadInput
from common.files import CheckedFiles
from paths.recorded import open_path
from supervision.table import PredictionTable
from tests.faults.calls import Copy, call
from tests.faults.runs import COMPARISON, HUMAN, KEPT, PATHS, READ, STUDENT, TEACHER, resume

FLIPS = int(os.environ.get("FAULTS_FLIPS", 92))  # once for each file and reader; make faults asks for more
TRIALS = {"bit flips": FLIPS, "cut files": FLIPS // 2}

OHT, ESKD = (COMPARISON / "seed_10086" / method for method in ("OHT", "ESKD"))
READ_TO_GO_ON = [
    (OHT / "args.json", resume("old_cifar_noisy")),
    (OHT / "checksums.json", resume("old_cifar_noisy")),
    (OHT / "best_acc.pt", resume("old_cifar_noisy")),
    (ESKD / "args.json", resume("old_cifar_noisy")),
    (ESKD / "checksums.json", resume("old_cifar_noisy")),
    (ESKD / "last.pt", resume("old_cifar_noisy")),
]


# ------------------------------------------------------------------------------------------------- readers


def table_values(file):
    table = PredictionTable.load(file)
    return table.values.numpy().tobytes(), table.visited.numpy().tobytes(), table.smoothing


def path_values(file):
    return open_path(file).tobytes()


READ_BY_FUNCTIONS = [
    *[(run / f"{name}.{end}", table_values) for run in (TEACHER, STUDENT) for name in KEPT for end in ("npy", "json")],
    *[(PATHS / f"PATH_BATCH_{kind}.{end}", path_values) for kind in ("COARSE", "FINE") for end in ("npy", "json")],
    *[(HUMAN / f"PATH_ALL_FINE.{end}", path_values) for end in ("npy", "json")],
]


def read(copy, file, reader):
    """(exit code, messages) of a script's command, or of a function that is given the array that `file` belongs to."""
    if not callable(reader):
        code, _, err = call(reader[0], reader[1:], copy.folder)
        return code, err
    try:
        reader(copy.folder / file.with_suffix(".npy"))
    except (BadInput, ValueError) as problem:
        return 2, f"error: {problem}"
    return 0, ""


def outcome(copy, file, reader):
    """What was read, or what was made of it: {file: content}, clocks and logs aside."""
    if callable(reader):
        return reader(copy.folder / file.with_suffix(".npy"))
    aside = ("last.pt", "metrics.csv", "args.json", "environment.json", "checksums.json")
    made = [copy.folder / name for name in copy.changed()]
    made = [path for path in made if path.suffix in (".csv", ".json", ".npy", ".pt") and path.name not in aside]
    return {str(path.relative_to(copy.folder)): path.read_bytes() for path in made}


# -------------------------------------------------------------------------------------------------- damage


def flip(content, draw):
    """One bit: anywhere, or in a byte that is not zero (most of a small table's are), or near an end, where headers and
    lists of contents are."""
    places = [draw.randrange(len(content)) for _ in range(50)]
    filled = next((place for place in places if content[place]), places[0])
    edge = draw.randrange(min(512, len(content)))
    place, bit = draw.choice([places[0], filled, filled, edge, len(content) - 1 - edge]), draw.randrange(8)
    return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :], f"bit {bit} of byte {place}"


def cut(content, draw):
    length = draw.choice([0, draw.randrange(len(content)), len(content) - 1])
    return content[:length], f"cut after {length} of {len(content)} bytes"


DAMAGES = {"bit flips": flip, "cut files": cut}


def damage_and_read(copy, pairs, damage, draw, trials):
    """(counts of damages found and of damages without effect, what went wrong, in words)."""
    counts, wrong, intact = Counter(), [], {}
    for number in range(trials):
        file, reader = pairs[number % len(pairs)]
        key = (reader, file if callable(reader) else None)
        if key not in intact:
            code, err = read(copy, file, reader)
            assert code == 0, err
            intact[key] = outcome(copy, file, reader)
            copy.mend()
        content, what = damage((copy.folder / file).read_bytes(), draw)
        (copy.folder / file).write_bytes(content)
        code, err = read(copy, file, reader)
        lines = [line for line in err.splitlines() if not line.startswith("warning: ")]
        case = f"{file}, {what}, {reader if callable(reader) else reader[0]}: {code} {err[-400:]}"
        written = [name for name in copy.changed() if name != str(file) and not name.endswith(".txt")]
        if code == 0:
            (copy.folder / file).write_bytes((copy.whole / file).read_bytes())
            counts["harmless"] += 1
            wrong += [] if outcome(copy, file, reader) == intact[key] else [f"unnoticed: {case}"]
        elif code not in (1, 2) or len(lines) > 2 or not all(line.startswith("error: ") for line in lines):
            wrong.append(f"not told in a line: {case}")
        elif not any(file.stem in line for line in lines):
            wrong.append(f"not named: {case}")
        elif written:
            wrong.append(f"{written} written: {case}")
        else:
            counts["found"] += 1
        copy.mend()
    return counts, wrong


@pytest.fixture(scope="module")
def whole(undisturbed, tmp_path_factory):
    """The chain's folder, and one in which the comparison was killed before its second method was done."""
    stopped = tmp_path_factory.mktemp("stopped") / "chain"
    shutil.copytree(undisturbed[0], stopped)
    (stopped / ESKD / "result.json").unlink()
    results = (stopped / COMPARISON / "results.csv").read_text().splitlines(keepends=True)
    with CheckedFiles(stopped / COMPARISON).together() as open_file, open_file("results.csv", "w") as f:
        f.writelines(results[:2])
    return undisturbed[0], stopped


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_is_found_by_whatever_reads_the_file(kind, whole, tmp_path, no_drawing, tell):
    draw, counts, wrong, trials = random.Random(0), Counter(), [], 0
    for number, (root, pairs) in enumerate(zip(whole, (READ + READ_BY_FUNCTIONS, READ_TO_GO_ON), strict=True)):
        pairs = draw.sample(pairs, len(pairs))
        share = TRIALS[kind] * len(pairs) // len(READ + READ_BY_FUNCTIONS + READ_TO_GO_ON)
        found = damage_and_read(Copy(root, tmp_path / str(number)), pairs, DAMAGES[kind], draw, share)
        counts, wrong, trials = counts + found[0], wrong + found[1], trials + share
    tell(f"{kind} found", f"{counts['found']} of {trials - counts['harmless']}; {counts['harmless']} without effect")
    assert not wrong, "\n".join([f"{len(wrong)} of {trials}:", *wrong])
