"""Peak private memory of main_gen_path.py at 5 and at 50 epochs: it must not grow with the path.

python -m benchmarks.path_memory --data_dir cifar10.npz

The peak is the kernel's own high-water mark (VmHWM, of all resident pages) less the pages of files (libraries): asking
for RssAnon every few milliseconds misses the activations of a forward pass more often than not. glibc's allocator keeps
what is freed in growing heaps, which hides what a program itself holds; with a fixed threshold it gives back at once
(--allocator default: as it is without).
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


FIXED = {"MALLOC_MMAP_THRESHOLD_": "131072"}  # bytes; glibc raises it by itself to 32 MiB otherwise


def peak(flags, epochs, folder, environment):
    """(peak private memory in MB, size of PATH_TRAIN_COARSE.npy in MB) of a run."""
    epochs = str(epochs)
    command = [sys.executable, str(ROOT / "main_gen_path.py"), *flags, "--epochs", epochs, "--run_name", epochs]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, env=environment)
    most = 0
    while process.poll() is None:
        most = high_water(process.pid) or most
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    return most, (Path(folder) / f"results/Gen_path/run_{epochs}/PATH_TRAIN_COARSE.npy").stat().st_size / 1e6


def high_water(pid):
    """The most private memory that a process has had so far, in MB; 0 when it has ended."""
    try:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        total, files = (int(status[name].split()[0]) / 1024 for name in ("VmHWM", "RssFile"))
    except (OSError, KeyError):
        return 0
    return total - files


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", required=True, help="a .npz of CIFAR-10")
    parser.add_argument("--allocator", choices=["fixed", "default"], default="fixed")
    args = parser.parse_args()
    environment = {**os.environ, **(FIXED if args.allocator == "fixed" else {})}
    flags = ["--dataset", "npz", "--data_dir", str(Path(args.data_dir).resolve()), "--net", "smallcnn"]
    flags += ["--train_size", "1000"]
    with tempfile.TemporaryDirectory() as folder:
        for epochs in (5, 50):
            most, size = peak(flags, epochs, folder, environment)
            print(
                f"{epochs:3d} epochs: peak private memory {most:.1f} MB, PATH_TRAIN_COARSE.npy {size:.1f} MB",
                flush=True,
            )


if __name__ == "__main__":
    main()
