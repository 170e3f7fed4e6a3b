"""Files that appear together with their checksums, and what a stop at any point leaves."""

import json
import os

import pytest

from common import files
from common.errors import BadInput
from common.files import CHECKSUMS, CheckedFiles, as_json, check_intact, read_checksums, read_json, sha256_of


def write(checked, **contents):
    with checked.together() as open_file:
        for name, content in contents.items():
            with open_file(name, "w") as f:
                f.write(content)


def test_files_are_listed_with_what_they_hold_and_held(tmp_path):
    checked = CheckedFiles(tmp_path)
    write(checked, a="one", b="two")
    before = sha256_of(tmp_path / "a")
    write(checked, a="three")
    listed = read_checksums(tmp_path)
    assert listed["a"] == [sha256_of(tmp_path / "a"), before] and listed["b"] == [sha256_of(tmp_path / "b")]
    assert sorted(f.name for f in tmp_path.iterdir()) == ["a", "b", CHECKSUMS]
    for name in ("a", "b"):
        assert check_intact(tmp_path / name) == tmp_path / name


def test_a_changed_file_is_named_and_an_unlisted_one_passes(tmp_path):
    write(CheckedFiles(tmp_path), a="one")
    (tmp_path / "a").write_text("onf")
    (tmp_path / "other").write_text("mine")
    with pytest.raises(BadInput, match=f"{tmp_path}/a"):
        check_intact(tmp_path / "a")
    check_intact(tmp_path / "other")
    check_intact(tmp_path / "gone")  # whoever opens it says that it is not there


class Killed(BaseException):
    pass


@pytest.mark.parametrize("renames", range(4))  # checksums.json, a, b, none too many
def test_killed_between_any_two_renames_nothing_looks_damaged(tmp_path, monkeypatch, renames):
    write(CheckedFiles(tmp_path), a="old a", b="old b")
    left, replace = [renames], os.replace

    def some(source, target):
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        replace(source, target)

    def stays(*args, **kwargs):  # a kill removes nothing
        pass

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", some)
        patch.setattr(files.Path, "unlink", stays)
        if renames < 3:
            with pytest.raises(Killed):
                write(CheckedFiles(tmp_path), a="new a", b="new b")
        else:
            write(CheckedFiles(tmp_path), a="new a", b="new b")
    assert [(tmp_path / name).read_text()[:3] for name in "ab"] == (["new"] * max(renames - 1, 0) + ["old"] * 2)[:2]
    check_intact(tmp_path / "a")
    check_intact(tmp_path / "b")
    write(CheckedFiles(tmp_path), b="newest b")  # the next process goes on from either
    check_intact(tmp_path / "a")
    check_intact(tmp_path / "b")


def test_a_file_that_cannot_be_written_leaves_all_as_it_was(tmp_path, monkeypatch):
    checked = CheckedFiles(tmp_path)
    write(checked, a="old a", b="old b")
    before = {f.name: f.read_bytes() for f in tmp_path.iterdir()}
    left, fsync = [1], os.fsync

    def full(handle):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        with pytest.raises(OSError) as found:
            write(checked, a="new a", b="new b")
    assert found.value.filename == str(tmp_path / "b")
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == before
    write(checked, a="newer a")
    check_intact(tmp_path / "a")


@pytest.mark.parametrize("content", [{"a": 1.5, "b": [1, None, "ü"]}, {}, {"x": float("nan")}, {"n": {3: "text"}}])
def test_json_comes_back_and_any_flipped_bit_is_noticed(tmp_path, content):
    path = tmp_path / "x.json"
    with CheckedFiles(tmp_path).together() as open_file, open_file("x.json", "w") as f:
        f.write(as_json(content))
    assert json.dumps(read_json(check_intact(path))) == json.dumps(json.loads(json.dumps(content)))
    whole = path.read_bytes()
    for place in range(len(whole)):
        for bit in range(8):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            with pytest.raises(BadInput, match=r"x\.json"):
                read_json(check_intact(path))
