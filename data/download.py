"""Fetch what torchvision does not: CIFAR-10H, CIFAR-10N, Tiny ImageNet. Files already there are kept.

python data/download.py cifar10h|cifar10n|tinyimagenet [--data_dir ./datasets] [--url URL]
"""

import hashlib
import http.client
import os
import shlex
import shutil
import stat
import sys
import urllib.request
import zipfile
from pathlib import Path, PurePosixPath

from tqdm import tqdm

if __name__ == "__main__":  # run as a script: the path starts at data/, common/errors.py is one level up
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common.errors import BadInput, RunFailure, run_script
from common.flags import CheckedParser, one_of

CIFAR_H = "https://raw.githubusercontent.com/jcpeterson/cifar-10h/master/data/"
CIFAR_N = "https://raw.githubusercontent.com/UCSC-REAL/cifar-10-100n/main/data/"
SOURCES = {  # data set: its files as (name below --data_dir, address, SHA-256 or None where it is not known)
    "cifar10h": [
        (
            "cifar10h-probs.npy",
            CIFAR_H + "cifar10h-probs.npy",
            "436ae98620e00073f9d08585ac870573b588853e7af9f54eb1647408114af77d",
        )
    ],
    "cifar10n": [
        (
            "CIFAR-10_human.pt",
            CIFAR_N + "CIFAR-10_human.pt",
            "873e69c39cb9b5e97fb6bae2d60bb59b38a5cbc31d2b868f7903dcb2b9dd2310",
        ),
        ("CIFAR-100_human.pt", CIFAR_N + "CIFAR-100_human.pt", None),
    ],
    "tinyimagenet": [("tiny-imagenet-200.zip", "http://cs231n.stanford.edu/tiny-imagenet-200.zip", None)],
}
TINY_IMAGENET = "tiny-imagenet-200"
MAX_FILES, MAX_BYTES = 500_000, 2 << 30  # what may be unpacked; Tiny ImageNet has 120,000 files of some 2 kB


def check_present(path, sha256=None):
    """The SHA-256 of the file at path, None if nothing is there; BadInput if it is not the one expected."""
    if not os.path.lexists(path):
        return None
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 and found != sha256:
        raise BadInput(
            f"{path}: there already, but not the published file (its SHA-256 is {found});\n"
            "move it away, then run this again"
        )
    return found


def fetch(url, path, sha256=None):
    """Bring the file at url (http, https, file) to path, whole or not at all, and return its SHA-256.

    A file already at path is kept; if it has not the checksum expected, BadInput is raised. RunFailure, with
    nothing at path, if the file cannot be fetched or saved or is not the one expected.
    """
    path, note = Path(path), "" if sha256 else " (no published one to compare with)"
    if found := check_present(path, sha256):
        print(f"kept {path}, SHA-256 {found}{note}")
        return found
    partial, digest = path.with_name(f"{path.name}.{os.getpid()}.partial"), hashlib.sha256()
    try:
        with urllib.request.urlopen(url, timeout=60) as answer, open(partial, "wb") as file:
            length = int(answer.headers.get("Content-Length") or 0)
            with tqdm(total=length or None, desc=path.name, unit="B", unit_scale=True, disable=None) as bar:
                while chunk := answer.read(1 << 20):
                    digest.update(chunk)
                    bar.update(file.write(chunk))
            if length and file.tell() != length:  # http.client ends a cut-off answer like a whole one
                raise OSError(f"the connection broke after {file.tell():,} of {length:,} bytes")
            file.flush()
            os.fsync(file.fileno())
        found = digest.hexdigest()
        if sha256 and found != sha256:
            raise ValueError(f"it is not the published file, its SHA-256 is {found}")
        os.rename(partial, path)
    except (OSError, http.client.HTTPException, ValueError) as error:  # network, HTTP, disk, odd address
        raise RunFailure(
            f"{url}: could not be brought to {path}, nothing was written;\n"
            f"{str(error).strip('<>')}; try again, or another --url"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    print(f"wrote {path}, SHA-256 {found}{note}")
    return found


def extract(archive, folder):
    """Unpack the Tiny ImageNet zip so that its tiny-imagenet-200 becomes folder, whole or not at all.

    RunFailure, with nothing at folder, if the zip is damaged or another one, too large unpacked, or unsafe.
    """
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    try:
        with zipfile.ZipFile(archive) as pack:
            members = pack.infolist()
            # Declared sizes bound the real ones: zipfile never unpacks more of a member than it declares.
            if len(members) > MAX_FILES or sum(member.file_size for member in members) > MAX_BYTES:
                raise ValueError("it unpacks to far more than Tiny ImageNet")
            if unsafe := [member.filename for member in members if not _is_safe(member)]:
                raise ValueError(f"{unsafe[0]!r} is a link, or would land outside its folder")
            for member in tqdm(members, desc="extract", unit="file", disable=None):
                pack.extract(member, partial)
        if not (partial / TINY_IMAGENET / "train").is_dir():
            raise ValueError(f"there is no {TINY_IMAGENET}/train in it")
        # Not synced (120,000 times takes minutes): should the power fail now, the zip is still there.
        os.rename(partial / TINY_IMAGENET, folder)
    except Exception as error:  # zipfile has half a dozen kinds for a damaged file, and the disk may be full
        raise RunFailure(
            f"{archive}: not extracted: {error}\nif the disk is not the reason, move the file away and run this again"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _is_safe(member):
    path, kind = PurePosixPath(member.filename), stat.S_IFMT(member.external_attr >> 16)
    inside = not path.is_absolute() and ".." not in path.parts and not set("\\:") & set(member.filename)
    return inside and kind in (0, stat.S_IFREG, stat.S_IFDIR)  # 0: packed on a system without Unix modes


def make_parser():
    parser = CheckedParser(description=__doc__)
    parser.add_argument("dataset", help="what to fetch", **one_of(SOURCES))
    parser.add_argument("--data_dir", default="datasets", help="where it goes")
    parser.add_argument("--url", help="another address: of the file, or of the folder of several files")
    return parser


def main(argv=None):
    args, problems = make_parser().parse_collecting(argv)
    problems.stop_if_any()
    args.data_dir = Path(args.data_dir)

    sources, folder = SOURCES[args.dataset], args.data_dir / TINY_IMAGENET
    results = [args.data_dir / name for name, _, _ in sources]
    is_tiny = args.dataset == "tinyimagenet"
    if is_tiny and os.path.lexists(folder):  # extracted before: the zip is not needed again
        sources = []
    if args.url is not None and not args.url.lower().startswith(("http://", "https://", "file://")):
        problems.add(f"--url {args.url}: not an address; it starts with http://, https:// or file://")
    if args.data_dir.exists() and not args.data_dir.is_dir():
        problems.add(f"--data_dir {args.data_dir}: not a folder; name one, it is made if need be")
    if is_tiny and not sources and not (folder / "train").is_dir():
        problems.add(f"{folder}: in the way, it has no train folder; move it away, then run this again")
    for name, _, sha256 in sources:
        with problems.collect():
            check_present(args.data_dir / name, sha256)
    problems.stop_if_any()

    args.data_dir.mkdir(parents=True, exist_ok=True)
    for name, url, sha256 in sources:
        if args.url:
            is_folder = len(sources) > 1 or args.url.endswith("/")
            url = f"{args.url.rstrip('/')}/{name}" if is_folder else args.url
        fetch(url, args.data_dir / name, sha256)
    if is_tiny:
        if sources:
            extract(results[0], folder)
        print(f"wrote {folder}; the zip is no longer needed" if sources else f"kept {folder}")
        print(f"next: python data/refolder_tiny_imagenet.py {shlex.quote(str(folder))}")
    print(*[folder] if is_tiny else results)


if __name__ == "__main__":
    run_script(main)
