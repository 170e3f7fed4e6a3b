"""data/download.py: what arrives is the right file, whole, or nothing is there (no network: file:// only)."""

import email.message
import errno
import hashlib
import io
import os
import stat
import subprocess
import sys
import urllib.error
import zipfile
from pathlib import Path

import pytest

from common.errors import BadInput, RunFailure
from common.files import sha256_of
from data import download

SCRIPT = Path(download.__file__)
CONTENT = b"human labels" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "mirror" / "labels.npy"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def target(tmp_path):
    folder = tmp_path / "datasets"
    folder.mkdir()
    return folder / "labels.npy"


def answer_with(monkeypatch, body, length=None):
    """Let every address answer with body; length is what the answer claims to have."""

    def answer(url, data=None):
        found, headers = io.BytesIO(body), email.message.Message()
        if length is not None:
            headers["Content-Length"] = str(length)
        found.info = lambda: headers
        return found

    monkeypatch.setattr(download.urllib.request, "urlopen", answer)


def assert_nothing_left(target):
    assert list(target.parent.iterdir()) == []


def test_fetch_writes_the_file_and_returns_its_checksum(source, target):
    download.fetch(source.as_uri(), target, SHA256)
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]


def test_without_a_known_checksum_the_one_found_is_printed(source, target, capsys):
    download.fetch(source.as_uri(), target)
    assert SHA256 in capsys.readouterr().out


def test_a_file_with_the_right_checksum_is_kept_without_asking_the_address(target, capsys):
    target.write_bytes(CONTENT)
    download.fetch("http://nowhere.invalid/", target, SHA256)
    assert str(target) in capsys.readouterr().out


def test_a_file_with_a_wrong_checksum_is_named_and_never_overwritten(source, target):
    target.write_bytes(b"the user's own")
    with pytest.raises(BadInput, match=str(target)):
        download.fetch(source.as_uri(), target, SHA256)
    assert target.read_bytes() == b"the user's own"


def test_a_download_with_a_wrong_checksum_leaves_nothing(source, target):
    source.write_bytes(b"damaged")
    with pytest.raises(RunFailure, match=hashlib.sha256(b"damaged").hexdigest()):
        download.fetch(source.as_uri(), target, SHA256)
    assert_nothing_left(target)


def test_a_connection_that_breaks_leaves_nothing(target, monkeypatch):
    answer_with(monkeypatch, CONTENT[:5000], length=len(CONTENT))
    with pytest.raises(RunFailure, match="(?s)http://example.org/labels.npy.*5000.*12000"):
        download.fetch("http://example.org/labels.npy", target)
    assert_nothing_left(target)


def test_an_answer_of_undeclared_length_is_accepted(target, monkeypatch):
    answer_with(monkeypatch, CONTENT)
    download.fetch("http://example.org/labels.npy", target, SHA256)
    assert target.read_bytes() == CONTENT


def test_an_http_error_is_reported_with_its_number(target, monkeypatch):
    def refuse(url, data=None):
        raise urllib.error.HTTPError(url, 404, "Not Found", email.message.Message(), None)

    monkeypatch.setattr(download.urllib.request, "urlopen", refuse)
    with pytest.raises(RunFailure, match="404"):
        download.fetch("http://example.org/labels.npy", target)
    assert_nothing_left(target)


def test_a_full_disk_leaves_nothing(source, target, monkeypatch):
    def full(*names):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(download.os, "replace", full)
    with pytest.raises(RunFailure, match=str(target)):
        download.fetch(source.as_uri(), target)
    assert_nothing_left(target)


def test_an_interrupt_leaves_nothing(source, target, monkeypatch):
    def interrupt(*names):
        raise KeyboardInterrupt

    monkeypatch.setattr(download.os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        download.fetch(source.as_uri(), target)
    assert_nothing_left(target)


def test_every_address_is_one_that_fetch_takes():
    for address, files in download.SOURCES.values():
        assert address.startswith(("https://", "http://"))
        assert all(sha256 is None or len(bytes.fromhex(sha256)) == 32 for sha256 in files.values())


def test_a_set_of_several_files_takes_a_folder_address(tmp_path, source, monkeypatch, capsys):
    (source.parent / "b.pt").write_bytes(b"b")
    monkeypatch.setitem(download.SOURCES, "cifar10n", ("x", {"labels.npy": SHA256, "b.pt": None}))
    for url in (source.parent.as_uri(), source.parent.as_uri() + "/"):
        download.main(["cifar10n", "--data_dir", str(tmp_path / "out"), "--url", url])
        last = capsys.readouterr().out.splitlines()[-1]
        assert last == f"{tmp_path / 'out' / 'labels.npy'} {tmp_path / 'out' / 'b.pt'}"


def test_mistakes_write_nothing(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "cifar10h-probs.npy").write_bytes(b"other")
    (tmp_path / "file").write_bytes(b"")
    for flags, named in (
        (["cifar10h", "--data_dir", str(out)], "cifar10h-probs.npy"),
        (["imagenet", "--data_dir", str(out)], "imagenet"),
        (["cifar10h", "--data_dir", str(tmp_path / "file")], "--data_dir"),
    ):
        with pytest.raises(BadInput, match=named):
            download.main(flags)
    assert [p.name for p in out.iterdir()] == ["cifar10h-probs.npy"]


# Tiny ImageNet's archive


def pack(path, members):
    """A zip at path of {name or ZipInfo: bytes}."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return path


def tiny_members():
    return {
        "tiny-imagenet-200/train/n01/images/n01_0.JPEG": b"image",
        "tiny-imagenet-200/val/val_annotations.txt": b"",
        "__MACOSX/._junk": b"",
    }


def test_tiny_imagenet_is_extracted_and_the_next_command_named(tmp_path, capsys):
    archive, out = pack(tmp_path / "tiny.zip", tiny_members()), tmp_path / "my data"
    folder = out / "tiny-imagenet-200"
    command = ["tinyimagenet", "--data_dir", str(out), "--url", archive.as_uri()]
    download.main(command)
    lines = capsys.readouterr().out.splitlines()
    assert (folder / "train/n01/images/n01_0.JPEG").read_bytes() == b"image"
    assert sorted(path.name for path in out.iterdir()) == ["tiny-imagenet-200", "tiny-imagenet-200.zip"]
    assert lines[-2].endswith(f"python data/refolder_tiny_imagenet.py '{folder}'") and lines[-1] == str(folder)

    (out / "tiny-imagenet-200.zip").unlink()
    archive.unlink()
    download.main(command)
    assert capsys.readouterr().out.splitlines()[-1] == str(folder)


def link(name):
    member = zipfile.ZipInfo(name)
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


@pytest.mark.parametrize(
    "member",
    ["../outside.txt", "tiny-imagenet-200/../../outside.txt", "/tmp/outside.txt", link("tiny-imagenet-200/train/link")],
    ids=str,
)
def test_an_archive_reaches_nothing_outside_its_folder(tmp_path, member):
    archive = pack(tmp_path / "tiny.zip", {**tiny_members(), member: b"/etc/passwd"})
    download.extract(archive, tmp_path / "tiny-imagenet-200")
    assert {path.name for path in tmp_path.iterdir()} == {archive.name, "tiny-imagenet-200"}
    assert not Path("/tmp/outside.txt").exists() and not any(p.is_symlink() for p in tmp_path.rglob("*"))


@pytest.mark.parametrize("damage", ["cut", "flipped", "no zip", "other zip", "larger than declared"])
def test_a_damaged_archive_leaves_no_folder(tmp_path, damage):
    archive = pack(tmp_path / "tiny.zip", {**tiny_members(), "tiny-imagenet-200/bomb": bytes(2 << 20)})
    data = bytearray(archive.read_bytes())
    if damage == "cut":
        del data[len(data) // 2 :]
    elif damage == "flipped":
        data[data.index(b"n01_0.JPEG") + 11] ^= 0xFF
    elif damage == "no zip":
        data = b"<html>not here any more</html>"
    elif damage == "larger than declared":  # both headers claim 5 bytes for the last member, which has 2 MiB of zeros
        declared = (2 << 20).to_bytes(4, "little")
        assert data.count(declared) == 2
        data = data.replace(declared, (5).to_bytes(4, "little"))
    archive.write_bytes(data)
    if damage == "other zip":
        pack(archive, {"readme.txt": b""})
    with pytest.raises(RunFailure, match=str(archive)):
        download.extract(archive, tmp_path / "tiny-imagenet-200")
    assert list(tmp_path.iterdir()) == [archive]


# The command itself


def run(*arguments, cwd):
    return subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], cwd=cwd, capture_output=True, text=True)


def test_the_command_writes_keeps_and_reports(tmp_path):
    archive = pack(tmp_path / "tiny.zip", tiny_members())
    first = run("tinyimagenet", "--url", archive.as_uri(), cwd=tmp_path)
    assert (first.returncode, first.stderr) == (0, "")  # no progress bar: this is no terminal
    assert first.stdout.splitlines()[-1] == "datasets/tiny-imagenet-200"

    absent = run("cifar10h", "--url", (tmp_path / "absent").as_uri(), cwd=tmp_path)
    assert (absent.returncode, absent.stdout) == (1, "")
    assert absent.stderr.startswith("error: file://") and absent.stderr.count("\n") <= 2

    (tmp_path / "datasets/cifar10h-probs.npy").write_bytes(b"other")
    taken = run("cifar10h", "--url", (tmp_path / "absent").as_uri(), cwd=tmp_path)
    assert taken.returncode == 2 and "cifar10h-probs.npy" in taken.stderr


def test_the_published_human_labels_have_the_checksums_written_down():
    folder = os.environ.get("TEST_DATA_DIR")
    if not folder:
        pytest.skip("TEST_DATA_DIR names no folder with the real data")
    known = {name: sha256 for _, files in download.SOURCES.values() for name, sha256 in files.items() if sha256}
    present = [name for name in known if (Path(folder) / name).is_file()]
    if not present:
        pytest.skip(f"TEST_DATA_DIR ({folder}) has none of {', '.join(known)}")
    for name in present:
        assert sha256_of(Path(folder) / name) == known[name]
