"""Peak private memory of main_gen_path.py at 5 and at 50 epochs: it must not grow with the path.

python -m benchmarks.path_memory --data_dir cifar10.npz
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.side_by_side import anonymous_memory

ROOT = Path(__file__).resolve().parent.parent


def peak(flags, epochs, folder):
    """(peak RssAnon in MB, size of PATH_TRAIN_COARSE.npy in MB) of a run."""
    epochs = str(epochs)
    command = [sys.executable, str(ROOT / "main_gen_path.py"), *flags, "--epochs", epochs, "--run_name", epochs]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    most = 0
    while process.poll() is None:
        most = max(most, anonymous_memory(process.pid))
        time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    return most, (Path(folder) / f"results/Gen_path/run_{epochs}/PATH_TRAIN_COARSE.npy").stat().st_size / 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", required=True, help="a .npz of CIFAR-10")
    args = parser.parse_args()
    flags = ["--dataset", "npz", "--data_dir", str(Path(args.data_dir).resolve()), "--net", "smallcnn"]
    flags += ["--train_size", "1000"]
    with tempfile.TemporaryDirectory() as folder:
        for epochs in (5, 50):
            most, size = peak(flags, epochs, folder)
            print(f"{epochs:3d} epochs: peak RssAnon {most:.1f} MB, PATH_TRAIN_COARSE.npy {size:.1f} MB", flush=True)


if __name__ == "__main__":
    main()
