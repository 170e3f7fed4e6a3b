"""common/untrusted.py: files that lie about their size or want to run, and damage anywhere: a line, never more."""

import contextlib
import io
import pickle
import random
import resource
import sys
import warnings
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from common import untrusted
from common.errors import BadInput
from common.untrusted import as_cell, from_cell, load_npy, load_npz, load_pt, printable, valid_text
from data.datasets import open_dataset
from data.images import FolderImages
from data.label_files import read_labels
from models import build_model, load_weights
from utils import experiment_parser

TERA = 2**40


def refusal(call):
    """The one line in which the call is refused."""
    with pytest.raises(BadInput) as found:
        call()
    (message,) = found.value.messages
    assert message.isprintable() and len(message) < 500
    return message


def header(shape, descr="<i8", version=1):
    """The first bytes of a .npy."""
    f = io.BytesIO()
    write = {1: np.lib.format.write_array_header_1_0, 2: np.lib.format.write_array_header_2_0}[version]
    write(f, {"descr": descr, "fortran_order": False, "shape": shape})
    return f.getvalue()


def npz(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


# ------------------------------------------------------------------------------------------- .npy, .npz


@pytest.mark.parametrize(
    "array", [np.arange(6).reshape(2, 3), np.array(["a", "é"]), np.zeros((0, 4)), np.zeros((5, 2, 3), ">f4")]
)
@pytest.mark.parametrize("mapped", [False, True])
def test_arrays_come_back_as_they_were_saved(tmp_path, array, mapped):
    np.save(tmp_path / "a.npy", np.asfortranarray(array))
    found = load_npy(tmp_path / "a.npy", mapped=mapped)
    assert found.dtype == array.dtype and np.array_equal(found, array)
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", a=array, b=np.zeros(3))
        (found,) = load_npz(tmp_path / "a.npz", ["a", "nowhere"]).items()
        assert found[0] == "a" and np.array_equal(found[1], array)


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize(
    "content",
    [
        header((TERA,)) + bytes(80),
        header((2**33, 2**33)) + bytes(80),  # the product overflows 64 bits
        header((9,)) + bytes(80),  # something after the end
        header((11,)) + bytes(80),
        header((TERA,), "<U0"),  # any number of nothing
        header((-1, -10)) + bytes(80),
        header((10,), "|O") + bytes(80),
        b"\x93NUMPY\x03\x00" + header((10,))[8:] + bytes(80),
        b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535,
        b"\x93NUMPY\x01\x00\x10\x27" + b"(" * 10000,
        b"",
        b"PK\x03\x04",
    ],
    ids=range(12),
)
def test_a_header_that_claims_what_the_file_has_not_is_a_line(tmp_path, content, mapped):
    (tmp_path / "a.npy").write_bytes(content)
    assert refusal(lambda: load_npy(tmp_path / "a.npy", mapped=mapped)).startswith(f"{tmp_path}/a.npy: ")
    npz(tmp_path / "a.npz", {"a.npy": content})
    assert refusal(lambda: load_npz(tmp_path / "a.npz", ["a"], "--flag a.npz: no")).startswith("--flag a.npz: no (")


def test_a_member_that_declares_more_than_memory_is_not_unpacked(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", bomb=np.zeros(10**6), other=np.zeros(10))
    assert (tmp_path / "a.npz").stat().st_size < 10_000
    monkeypatch.setattr(untrusted, "available_memory", lambda: 10**6)
    refusal(lambda: load_npz(tmp_path / "a.npz", ["bomb"]))
    assert load_npz(tmp_path / "a.npz", ["other"])["other"].shape == (10,)  # nothing of the bomb is looked at
    np.save(tmp_path / "a.npy", np.zeros(10**6))
    refusal(lambda: load_npy(tmp_path / "a.npy"))
    assert len(load_npy(tmp_path / "a.npy", mapped=True)) == 10**6


def test_a_member_whose_size_is_a_lie_is_refused(tmp_path):
    whole = header((100,)) + bytes(800)
    npz(tmp_path / "a.npz", {"a.npy": whole}, zipfile.ZIP_DEFLATED)
    content, short = (tmp_path / "a.npz").read_bytes(), len(whole).to_bytes(4, "little")
    assert content.count(short) == 2
    (tmp_path / "a.npz").write_bytes(content.replace(short, (2**31).to_bytes(4, "little")))
    assert "800" in refusal(lambda: load_npz(tmp_path / "a.npz", ["a"]))
    npz(tmp_path / "a.npz", {"a.npy": header((2**24,)) + bytes(800)}, zipfile.ZIP_DEFLATED)
    content, size = (tmp_path / "a.npz").read_bytes(), len(whole).to_bytes(4, "little")
    lie = (2**27 + len(header((2**24,)))).to_bytes(4, "little")
    (tmp_path / "a.npz").write_bytes(content.replace(size, lie))
    refusal(lambda: load_npz(tmp_path / "a.npz", ["a"]))


# --------------------------------------------------------------------------------------------------- .pt


def repacked(path, compression=zipfile.ZIP_STORED, **changes):
    """The zip at path written anew, with the content of some members (by the end of their names) changed."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for end, content in changes.items():
        (name,) = [name for name in members if name.endswith(end)]
        members[name] = content
    return npz(path, members, compression)


def test_what_torch_save_wrote_comes_back_in_either_format(tmp_path):
    content = {"w": torch.randn(3, 4).t(), "n": [1, 2.5, "x", None], "b": torch.zeros(2, dtype=torch.bfloat16)}
    for new in (True, False):
        torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=new)
        found = load_pt(tmp_path / "a.pt")
        assert (
            torch.equal(found["w"], content["w"]) and found["n"] == content["n"] and found["b"].dtype == torch.bfloat16
        )


def test_odd_versions_of_a_format_are_no_reason_to_warn(tmp_path):
    torch.save({"n": 1}, tmp_path / "a.pt", pickle_protocol=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_pt(tmp_path / "a.pt") == {"n": 1}


def test_a_compressed_pt_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    torch.save({"w": torch.randn(1000)}, tmp_path / "a.pt")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("opened"))
    refusal(lambda: load_pt(repacked(tmp_path / "a.pt", zipfile.ZIP_DEFLATED)))


def test_a_pt_whose_members_declare_more_than_it_has_is_refused(tmp_path, monkeypatch):
    torch.save({"w": torch.zeros(1000)}, tmp_path / "a.pt")
    content = (tmp_path / "a.pt").read_bytes()
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("opened"))
    size = (4000).to_bytes(4, "little")
    assert content.count(size) >= 2
    (tmp_path / "a.pt").write_bytes(content.replace(size, (2**31).to_bytes(4, "little")))
    refusal(lambda: load_pt(tmp_path / "a.pt"))


def test_a_flipped_bit_in_a_tensor_is_found(tmp_path):
    torch.save({"w": torch.zeros(1000)}, tmp_path / "a.pt")
    content = bytearray((tmp_path / "a.pt").read_bytes())
    content[content.index(bytes(4000)) + 2000] ^= 1
    (tmp_path / "a.pt").write_bytes(content)
    refusal(lambda: load_pt(tmp_path / "a.pt"))


@pytest.mark.parametrize("what", ["storage", "shape"])
def test_a_tensor_that_claims_more_than_its_bytes_is_never_read_beyond_them(tmp_path, what):
    """torch itself would make a tensor of the claimed size over the few bytes that are there."""
    torch.save({"w": torch.arange(5000)}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        content = archive.read("a/data.pkl")
    size, claim = b"M" + (5000).to_bytes(2, "little"), b"J" + (2**30).to_bytes(4, "little")  # pickle's 2 and 4 bytes
    storage, shape, rest = content.split(size)
    lie = storage + claim + shape + (size if what == "storage" else claim) + rest
    repacked(tmp_path / "a.pt", **{"data.pkl": lie})
    with contextlib.suppress(BadInput):
        assert load_pt(tmp_path / "a.pt")["w"].tolist() == list(range(5000))


class Call:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux")
def test_a_pickle_cannot_ask_for_more_memory_than_goes_with_its_file(tmp_path):
    torch.save({"w": Call(bytearray, 2**30)}, tmp_path / "a.pt")  # torch allows this call
    limit = resource.getrlimit(resource.RLIMIT_AS)
    refusal(lambda: load_pt(tmp_path / "a.pt"))
    torch.save({"w": Call(bytearray, 1000)}, tmp_path / "a.pt")
    assert load_pt(tmp_path / "a.pt")["w"] == bytes(1000)
    assert resource.getrlimit(resource.RLIMIT_AS) == limit


def test_what_would_run_is_refused_and_no_advice_to_run_it_is_given(tmp_path):
    torch.save({"w": Call(open, str(tmp_path / "ran"), "w")}, tmp_path / "zip.pt")
    torch.save({"w": Call(open, str(tmp_path / "ran"), "w")}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Call(open, str(tmp_path / "ran"), "w"), 2))
    for name in ("zip.pt", "old.pt", "plain.pt"):
        message = refusal(lambda name=name: load_pt(tmp_path / name))
        assert "weights_only" not in message
    assert not (tmp_path / "ran").exists()


def test_what_is_not_there_is_said_in_the_systems_words(tmp_path):
    for load in (load_pt, load_npy, lambda path: load_npz(path, ["a"])):
        assert "(No such file or directory)" in refusal(lambda load=load: load(tmp_path / "none"))
        assert "(Is a directory)" in refusal(lambda load=load: load(tmp_path))


# ------------------------------------------------------------------------- damage at any place of any file


def pt_of_weights(path):
    torch.save(build_model("smallcnn", 10, 8).state_dict(), path)


def image(kind):
    def write(path):
        rng = np.random.default_rng(0)
        Image.fromarray(rng.integers(0, 256, (24, 20, 3), dtype=np.uint8)).save(path, kind)

    return write


LABELS = np.arange(60) % 3
SPLITS = {"train_images": np.zeros((60, 8, 8), np.uint8), "train_labels": LABELS}
SPLITS |= {
    "test_images": np.zeros((6, 8, 8), np.uint8),
    "test_labels": LABELS[:6],
    "class_names": np.array(list("abc")),
}


def labels_of(path):
    labels, _ = read_labels(str(path), 60, ["a", "b", "c"])
    assert labels.shape == (60,) and 0 <= labels.min() <= labels.max() < 3


def weights_of(path):
    load_weights(build_model("smallcnn", 10, 8), path)


def data_of(path):
    dataset = open_dataset(experiment_parser("test").parse_args(["--dataset", "npz", "--data_dir", str(path)]))
    assert dataset.train.images.shape == (60, 8, 8, 1) and dataset.train.labels.max() < dataset.num_classes == 3


def pixels_of(path):
    assert FolderImages(path.parent, [path.name], 8, 3).decode_rows(np.array([0])).shape == (1, 8, 8, 3)


FILES = {
    "weights.pt": (pt_of_weights, weights_of),
    "labels.pt": (lambda path: torch.save({"noisy": LABELS}, path), labels_of),
    "old.pt": (lambda path: torch.save({"noisy": LABELS}, path, _use_new_zipfile_serialization=False), labels_of),
    "tensor.pt": (lambda path: torch.save(torch.from_numpy(LABELS), path), labels_of),
    "labels.npy": (lambda path: np.save(path, LABELS), labels_of),
    "labels.npz": (lambda path: np.savez(path, noisy=LABELS), labels_of),
    "packed.npz": (lambda path: np.savez_compressed(path, noisy=LABELS), labels_of),
    "labels.csv": (
        lambda path: path.write_text("idx,label\n" + "".join(f"{i},{'abc'[k]}\n" for i, k in enumerate(LABELS))),
        labels_of,
    ),
    "data.npz": (lambda path: np.savez(path, **SPLITS), data_of),
    "x.jpg": (image("JPEG"), pixels_of),
    "x.png": (image("PNG"), pixels_of),
    "x.bmp": (image("BMP"), pixels_of),
    "x.tif": (image("TIFF"), pixels_of),
    "x.webp": (image("WEBP"), pixels_of),
    "x.ppm": (image("PPM"), pixels_of),
}


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_loads_as_its_kind_or_is_refused_in_a_line(tmp_path, name):
    write, load = FILES[name]
    write(tmp_path / name)
    load(tmp_path / name)
    whole, rng, refused = (tmp_path / name).read_bytes(), random.Random(name), 0
    # Half of the places lie near the ends, where headers and directories are
    places = [rng.randrange(len(whole)) for _ in range(20)]
    places += [min(rng.randrange(200), len(whole) - 1) for _ in range(10)]
    places += [max(len(whole) - 1 - rng.randrange(400), 0) for _ in range(10)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # would be lines on standard error, too
        for place in places:
            flipped = bytearray(whole)
            flipped[place] ^= 1 << rng.randrange(8)
            for content in (bytes(flipped), whole[:place]):
                (tmp_path / name).write_bytes(content)
                try:
                    load(tmp_path / name)
                except BadInput as found:
                    refused += 1
                    assert all(message.isprintable() and name in message for message in found.messages)
    assert refused >= len(places) or name.startswith("x.")  # whatever is cut is refused


# -------------------------------------------------------------------------------------------------- text


@pytest.mark.parametrize("name", ["=cmd()", "+1", "-x", "@a", "\tx", "\rx", "'=x", "''-", "'@", "=", "'\t"])
def test_what_could_be_a_formula_starts_with_an_apostrophe(name):
    assert as_cell(name) == f"'{name}" and from_cell(f"'{name}") == name


@pytest.mark.parametrize("name", ["cat", "'x", "''", "'", "", "a=b", "1", "x-ray", "'n Beest", " =x"])
def test_all_other_text_stays_as_it_is(name):
    assert as_cell(name) == name == from_cell(name)


@given(st.text(alphabet=st.sampled_from("'=+-@\t\r ax\n,\"")))
def test_a_cell_gives_back_the_text_it_was_made_of(text):
    assert from_cell(as_cell(text)) == text
    assert as_cell(text)[:1] not in tuple("=+-@\t\r")


def test_text_that_is_none_becomes_text():
    assert len(printable("a" * 10**6)) < 1000
    assert printable("a\x1b[2J\nb\udcff é") == r"a\x1b[2J\nb\udcff é"
    assert valid_text("caf\udce9\ud800") == r"caf\udce9\ud800" and valid_text("né\n") == "né\n"
