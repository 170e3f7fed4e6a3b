"""Test figures of a finished run's checkpoint, or its predictions for new images.

python evaluate.py results/Gen_teacher/resnet18cifar10_cosine --checkpoint best_acc
python evaluate.py RUN_DIR --images FOLDER --out predictions.csv
"""

import csv
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch.nn.functional as F

from common import errors, flags
from common.files import whole_file, write_json
from common.hardware import PRECISIONS, Hardware, pick_device
from common.untrusted import as_cell
from data.datasets import Split
from data.images import EXTENSIONS, FolderImages, find_images
from models import load_weights
from runs.figures import plot_confusion, plot_reliability
from runs.resuming import read_environment
from runs.run_folder import checkpoint_path, data_of, last_kept, network_of, read_args
from training.loop import metrics, predict
from utils import split_loader


def make_parser():
    parser = flags.CheckedParser(description=__doc__)
    parser.add_argument("run_dir", metavar="RUN_DIR", help="the folder that a training script wrote")
    flag = parser.add_argument
    flag("--checkpoint", default=None, help="which of the run's (best_acc; where no best epoch is chosen, the last)")
    flag("--data_dir", default=None, help="where the data lies now (the run's when not given)")
    flag("--images", default=None, metavar="FOLDER", help="predict these images instead of testing")
    flag("--out", default=None, metavar="FILE", help="--images: the CSV file to write")
    flag(
        "--device",
        default="auto",
        help="auto: CUDA, else MPS, else CPU",
        **flags.one_of(["auto", "cpu", "cuda", "mps"]),
    )
    flag(
        "--amp",
        default="auto",
        help="mixed precision; auto: the run's (float32 for float16 on a CPU, which cannot)",
        **flags.one_of(["auto", "off", "bf16", "fp16"]),
    )
    return parser


def choose_hardware(args) -> Hardware:
    """Hardware by --device and --amp; for --amp auto, where the run's folder says so, in the run's precision."""
    run_dir, amp = Path(args.run_dir), args.amp
    if amp == "auto" and (run_dir / "environment.json").is_file():
        amp = {precision: amp for amp, precision in PRECISIONS.items()}[read_environment(run_dir)["precision"]]
        if amp == "fp16" and pick_device(args.device).type == "cpu":
            amp = "off"
    return Hardware.choose(Namespace(device=args.device, amp=amp, compile="off", deterministic=False))


def test(args, settings: dict, hardware: Hardware, model, dataset) -> Path:
    """Evaluate on the test set; write figures and numbers into the run's folder, which is returned."""
    loader = split_loader(Namespace(**settings), dataset, dataset.test)
    logits, _, labels, _ = predict(model, hardware.forward_of(model), loader)
    found = metrics(logits, labels)
    confidence, predicted = (v.cpu().numpy() for v in F.softmax(logits, 1).max(1))
    labels = labels.cpu().numpy()
    counts = np.zeros((dataset.num_classes, dataset.num_classes), np.int64)
    np.add.at(counts, (labels, predicted), 1)
    out = Path(args.run_dir) / f"evaluation_{args.checkpoint}"
    out.mkdir(exist_ok=True)
    write_json(out / "metrics.json", {"checkpoint": args.checkpoint, "test_samples": len(labels), **found})
    plot_reliability(confidence, predicted == labels, found["ece"], out / "reliability.png")
    plot_confusion(counts, dataset.class_names, out / "confusion.png")
    print(f"{args.checkpoint} on {len(labels)} test samples")
    for name, what in (("acc", "accuracy"), ("nll", "NLL"), ("brier", "Brier score"), ("ece", "ECE, 10 bins")):
        print(f"{what:<14}{found[name]:.4f}")
    return out


def images_below(folder: str) -> list[str]:
    """The images below a folder, sorted, as paths relative to it. BadInput when there are none."""
    if not Path(folder).is_dir():
        raise errors.BadInput(f"--images {folder}: there is no such folder")
    files, _, notes = find_images(folder)
    if not files:
        raise errors.BadInput(f"--images {folder}: no images in it ({' '.join(EXTENSIONS)})", *notes)
    for note in notes:
        print(f"warning: {note}", file=sys.stderr)
    return files


def predict_images(args, settings: dict, hardware: Hardware, model, files: list[str]) -> Path:
    """Predict the images and write a CSV: file, label, name, confidence, and each class's probability."""
    resolved, no_labels = settings["resolved"], np.zeros(len(files), np.int64)
    images = FolderImages(Path(args.images), files, resolved["image_size"], resolved["channels"])
    images.backend = "memory" if images.fits_in_memory(np.arange(len(files))) else "files"  # no cache beside them
    loader = split_loader(Namespace(**settings), Namespace(**resolved), Split(images, no_labels))
    p = F.softmax(predict(model, hardware.forward_of(model), loader)[0], 1).cpu()
    names = resolved["class_names"]
    with whole_file(args.out, "w") as f:
        writer = csv.writer(f, lineterminator="\n")
        writer.writerow(["file", "label", "name", "confidence", *(f"p_{k}" for k in range(len(names)))])
        for file, row in zip(files, p, strict=True):
            label = int(row.argmax())
            told = [as_cell(file), label, as_cell(names[label]), f"{row[label]:.6f}"]
            writer.writerow([*told, *(f"{v:.6g}" for v in row.tolist())])
    return Path(args.out)


def main(argv=None) -> Path:
    """Run the script; returns the folder or file it wrote."""
    args = make_parser().parse_args(argv)
    if (args.images is None) != (args.out is None):
        raise errors.BadInput("--images FOLDER and --out FILE: each needs the other")
    if args.out and not Path(args.out).absolute().parent.is_dir():
        raise errors.BadInput(f"--out {args.out}: there is no folder {Path(args.out).parent}; make it first")
    hardware = choose_hardware(args)
    hardware.apply()
    settings = {**read_args(args.run_dir), "device": args.device}
    if args.checkpoint is None:  # runs that record paths choose no best epoch
        args.checkpoint = "best_acc" if Path(args.run_dir, "best_acc.pt").is_file() else last_kept(args.run_dir)
    weights = checkpoint_path(args.run_dir, "--checkpoint", args.checkpoint)
    model = load_weights(network_of(args.run_dir, settings), weights)
    hardware.place(model)
    if args.images:
        written = predict_images(args, settings, hardware, model, images_below(args.images))
    else:
        dataset = data_of(args.run_dir, settings, args.data_dir, download=True)
        written = test(args, settings, hardware, model, dataset)
    print(written)
    return written


if __name__ == "__main__":
    errors.run_script(main)
