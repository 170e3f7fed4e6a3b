"""Fetch what torchvision does not: CIFAR-10H, CIFAR-10N, Tiny ImageNet. Files already there are kept.

python data/download.py cifar10h|cifar10n|tinyimagenet [--data_dir ./datasets] [--url URL]
"""

import http.client
import os
import shlex
import shutil
import socket
import sys
import urllib.request
import zipfile
from pathlib import Path

from tqdm import tqdm

if __name__ == "__main__":  # run as a script: the path starts at data/, common/errors.py is one level up
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common.errors import BadInput, RunFailure, run_script
from common.files import partial_name, sha256_of
from common.flags import CheckedParser, one_of

SOURCES = {  # data set: (address of a folder, {name of a file in it: its SHA-256, or None where it is not known})
    "cifar10h": (
        "https://raw.githubusercontent.com/jcpeterson/cifar-10h/master/data",
        {"cifar10h-probs.npy": "436ae98620e00073f9d08585ac870573b588853e7af9f54eb1647408114af77d"},
    ),
    "cifar10n": (
        "https://raw.githubusercontent.com/UCSC-REAL/cifar-10-100n/main/data",
        {
            "CIFAR-10_human.pt": "873e69c39cb9b5e97fb6bae2d60bb59b38a5cbc31d2b868f7903dcb2b9dd2310",
            "CIFAR-100_human.pt": None,
        },
    ),
    "tinyimagenet": ("http://cs231n.stanford.edu", {"tiny-imagenet-200.zip": None}),
}
TINY_IMAGENET = "tiny-imagenet-200"


def fetch(url: str, path: Path, sha256: str | None = None) -> None:
    """Bring the file at url (http, https, file) to path, whole or not at all. A file already at path is kept.

    BadInput if that is not the one expected. RunFailure, with nothing at path, if the file cannot be fetched or saved
    or is not the one expected.
    """
    if path.exists():
        if sha256 and sha256_of(path) != sha256:
            raise BadInput(f"{path}: there already, but not the published file; move it away, then run this again")
        print(f"kept {path}")
        return
    partial = partial_name(path)
    try:
        with tqdm(desc=path.name, unit="B", unit_scale=True, disable=None) as bar:
            urllib.request.urlretrieve(url, partial, lambda block, size, total: bar.update(block * size - bar.n))
        found = sha256_of(partial)
        if found != (sha256 or found):
            raise ValueError(f"it is not the published file, its SHA-256 is {found}")
        os.replace(partial, path)
    except (OSError, http.client.HTTPException, ValueError) as error:  # network, HTTP, disk, odd address
        raise RunFailure(
            f"{url}: could not be brought to {path}, nothing was written;\n"
            f"{str(error).strip('<>')}; try again, or another --url"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    print(f"wrote {path}, SHA-256 {found}{'' if sha256 else ' (none is published)'}")


def extract(archive: Path, folder: Path) -> None:
    """Unpack the Tiny ImageNet zip so that its tiny-imagenet-200 becomes folder, whole or not at all.

    RunFailure, with nothing at folder, if the zip is damaged or another one.
    """
    partial = partial_name(folder)
    try:
        with zipfile.ZipFile(archive) as pack:
            # zipfile makes no links and writes nothing outside the folder
            for member in tqdm(pack.infolist(), desc="extract", unit="file", disable=None):
                pack.extract(member, partial)
        os.replace(partial / TINY_IMAGENET, folder)
    except Exception as error:  # zipfile has half a dozen kinds for a damaged file, and the disk may be full
        raise RunFailure(
            f"{archive}: not extracted: {error}\nif the disk is not the reason, move the file away and run this again"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def make_parser() -> CheckedParser:
    parser = CheckedParser(description=__doc__)
    parser.add_argument("dataset", help="what to fetch", **one_of(SOURCES))
    parser.add_argument("--data_dir", default="datasets", help="where it goes")
    parser.add_argument("--url", help="another address: of the file, or of the folder of several files")
    return parser


def main(argv=None):
    args = make_parser().parse_args(argv)
    (address, sources), where = SOURCES[args.dataset], Path(args.data_dir)
    files, folder = [where / name for name in sources], where / TINY_IMAGENET
    if where.exists() and not where.is_dir():
        raise BadInput(f"--data_dir {where}: not a folder; name one, it is made if need be")
    if args.dataset == "tinyimagenet" and (folder / "train").is_dir():  # extracted before: the zip is not needed again
        sources = {}
    where.mkdir(parents=True, exist_ok=True)
    socket.setdefaulttimeout(60)
    for name, sha256 in sources.items():
        is_file = args.url and len(sources) == 1 and not args.url.endswith("/")
        fetch(args.url if is_file else f"{(args.url or address).rstrip('/')}/{name}", where / name, sha256)
    if args.dataset == "tinyimagenet":
        if sources:
            extract(files[0], folder)
        print(f"wrote {folder}; the zip is no longer needed" if sources else f"kept {folder}")
        print(f"next: python data/refolder_tiny_imagenet.py {shlex.quote(str(folder))}")
        files = [folder]
    print(*files)


if __name__ == "__main__":
    run_script(main)
