"""What every script shares: the common flags, run names, the indexed noisy-label loaders, calibration error.

args = experiment_parser("my experiment").parse_args()
train, valid, test = get_loaders(args)
for x, y, ny, idx in train:    # clean label, possibly noisy label, the sample's row in the training split
    ...
"""

from argparse import Namespace

import torch

from common.flags import CheckedParser, count, inner_share, name, not_negative, one_of, positive, share, whole
from common.hardware import pick_device, usable_cpus
from data import augment, noise
from data.datasets import BACKENDS, DATASETS, TEST_SIZE, Dataset, Split
from data.label_files import split_file_and_key
from data.labels import LabelledData, load_data
from data.loader import IndexedLoader
from models import NETS

EVAL_BATCH = 500

FLAGS = {
    "data": {
        "--dataset": dict(default="cifar10", help="where images and labels come from", **one_of(DATASETS)),
        "--data_dir": dict(
            help="root for downloads (./datasets when not given); folder, tinyimagenet: the folder; npz: the file"
        ),
        "--image_size": dict(
            type=count,
            help="folder, tinyimagenet: side in pixels; shorter side resized, centre cut out (64 when not given)",
        ),
        "--train_size": dict(type=count, help="train on a class-balanced subset of this many"),
        "--valid_size": dict(
            type=not_negative,
            default=0.1,
            help="validation split of the training set: below 1 a share, from 1 a count; 0: none (then the test set "
            "chooses epochs, in scripts that choose any)",
        ),
        "--test_size": dict(
            type=inner_share,
            default=TEST_SIZE,
            help="folder without train/ and test/: share that is tested on, chosen by a hash of each file",
        ),
        "--skip_bad": dict(action="store_true", help="folder, tinyimagenet: leave out images that cannot be read"),
        "--augment": dict(
            default="auto",
            help="random shifts and flips, above 64 px resized crops and flips; auto: by image size; resized_crop: "
            "crops of the image files at their own size, and flips, as on ImageNet",
            **one_of(augment.KINDS),
        ),
        "--data_backend": dict(
            default="auto",
            help="folder, tinyimagenet: images in memory; in a cache, a file of all, decoded once; or read from their "
            "files each time; auto: the first that there is room for",
            **one_of(BACKENDS),
        ),
        "--cache_dir": dict(help="folder of that cache (a hidden one beside the images when not given)"),
        "--num_work": dict(
            type=whole,
            default=min(4, usable_cpus()),
            help="worker processes for images that do not fit in memory (as many as processors, up to 4)",
        ),
    },
    "label noise": {
        "--ny_ratio": dict(type=share, default=0.0, help="share of training labels drawn to be noisy"),
        "--ny_kind": dict(
            default="symmetric",
            help="symmetric may draw a label's own class again (as published), "
            "symmetric_exclusive never does, pair moves class k to k+1",
            **one_of(noise.KINDS),
        ),
        "--ny_file": dict(
            metavar="FILE[:KEY]",
            help="train on the labels in a file, such as people's: .pt, .npy, .npz, .csv; or marks.csv",
        ),
    },
    "network": {
        "--net": dict(default="resnet18", help="the network to train", **one_of(NETS)),
        "--width": dict(type=count, default=1, help="smallcnn: multiplies the channels"),
        "--norm": dict(default="batch", help="normalisation layers", **one_of(["batch", "group"])),
        "--pretrained": dict(action="store_true", help="start from torchvision's ImageNet weights, with their stem"),
    },
    "training": {
        "--lr": dict(type=positive, default=0.1, help="SGD's learning rate"),
        "--momentum": dict(type=share, default=0.9, help="SGD's momentum"),
        "--weight_decay": dict(type=not_negative, default=5e-4, help="SGD's weight decay"),
        "--scheduler": dict(
            default="cosine",
            help="cosine over all epochs to 1e-5, or multi: a tenth at each of epochs 80, 120, 160, 180",
            **one_of(["cosine", "multi"]),
        ),
        "--warmup": dict(type=whole, default=0, help="epochs over which the learning rate rises to the schedule's"),
        "--epochs": dict(type=count, default=200, help="passes over the training set"),
        "--batch_size": dict(type=count, default=250, help="samples an update, of all processes together"),
        "--accumulate": dict(type=count, default=1, help="parts a batch is computed in, to need less memory"),
        "--seed": dict(type=whole, default=10086, help="of weights, order and augmentation"),
        "--data_seed": dict(
            type=whole,
            help="of noise, subset and validation split (--seed's when not given; a student: its teacher's)",
        ),
    },
    "hardware": {
        "--device": dict(
            default="auto", help="auto: CUDA, else MPS, else the CPU", **one_of(["auto", "cpu", "cuda", "mps"])
        ),
        "--amp": dict(
            default="auto",
            help="mixed precision; auto: bfloat16 where the hardware has it",
            **one_of(["auto", "off", "bf16", "fp16"]),
        ),
        "--compile": dict(
            default="auto", help="torch.compile; auto: for long runs on CUDA", **one_of(["auto", "on", "off"])
        ),
        "--sync_bn": dict(action="store_true", help="torchrun, CUDA: BatchNorm's statistics of the whole batch"),
        "--dist_timeout": dict(type=count, default=600, help="torchrun: seconds to wait for a process that is stuck"),
        "--deterministic": dict(
            action="store_true", help="the same seed gives the same run on a GPU, too; slower there"
        ),
    },
    "the run": {
        "--proj_name": dict(type=name, default="results", help="folder below results/, and wandb's project"),
        "--run_name": dict(type=name, help="name of the run (DATASET_SCHEDULER, and the noise, when not given)"),
        "--save_epochs": dict(type=whole, nargs="*", default=[], help="epochs to keep, besides best and last"),
        "--eval_train": dict(
            action="store_true",
            help="training metrics from a clean pass at each epoch's end; its loss is cross-entropy",
        ),
        "-r --resume": dict(action="store_true", help="resume the run of this name, if there is one"),
        "--save_every": dict(type=count, default=1, help="epochs from one saving of last.pt to the next"),
        "--save_minutes": dict(type=positive, default=10, help="within an epoch, last.pt is saved this often"),
        "--overwrite": dict(action="store_true", help="replace a run of the same name"),
        "--wandb": dict(
            default="disabled",
            help="track with Weights & Biases",
            **one_of(["disabled", "online", "offline"]),
        ),
        "--check": dict(action="store_true", help="check everything, print the resolved settings, start nothing"),
    },
}


def experiment_parser(description: str, **defaults) -> CheckedParser:
    """An argparse parser with the flags that every training script has; `defaults` replaces defaults."""
    parser = CheckedParser(description=description).add_flags(FLAGS)
    parser.set_defaults(**{"valid_rows": "random", "train_on": "train", **defaults})
    return parser


def run_name(args: Namespace, mark: str = "") -> str:
    """--run_name, or DATASET_SCHEDULER and, under noise, _nRATIO or _nFILE: never a random name.

    mark: stands after DATASET.
    """
    return args.run_name or f"{args.dataset}{mark}_{args.scheduler}{noise_suffix(args)}"


def noise_suffix(args: Namespace) -> str:
    """_nRATIO, _nFILE or _nFILE_KEY, or nothing without noise: the end of a run's name."""
    if args.ny_file:
        path, key = split_file_and_key(args.ny_file)
        return f"_n{path.stem}" + (f"_{key}" if key else "")
    return f"_n{args.ny_ratio:g}" if args.ny_ratio else ""


def noise_in_words(args: Namespace) -> str:
    """The label noise that args ask for, for a person to read."""
    if args.ny_file:
        return f"labels of {args.ny_file}"
    return f"{args.ny_kind} noise of ratio {args.ny_ratio:g}" if args.ny_ratio else "no label noise"


def get_loaders(
    args: Namespace, data: LabelledData | None = None
) -> tuple[IndexedLoader, IndexedLoader | None, IndexedLoader]:
    """(train, valid, test) loaders of (x, y, ny, idx), see data.loader.IndexedLoader.

    train shuffles and augments. valid is None with --valid_size 0 and carries its noisy labels in ny where it
    was split off; test always carries clean labels. idx is the row in the set's own training split (in test,
    and in a validation split that the data set brings: in that split).
    """
    data = data or load_data(args)
    dataset, labels = data.dataset, (data.truth, data.ny)
    dataset.measure(data.train_idx, pick_device(args.device))
    train = split_loader(args, dataset, dataset.train, data.train_idx, *labels, args.batch_size)
    train.augment_kind = augment.resolve(args.augment, dataset.image_size, dataset.channels)
    train.seed(args.seed)
    valid = None
    if len(data.valid_idx):
        valid = split_loader(args, dataset, dataset.train, data.valid_idx, *labels)
    elif dataset.valid and args.valid_size:
        valid = split_loader(args, dataset, dataset.valid)
    return train, valid, split_loader(args, dataset, dataset.test)


def split_loader(
    args: Namespace, dataset: Dataset, split: Split, idx=None, y=None, ny=None, batch_size: int = EVAL_BATCH
) -> IndexedLoader:
    """The rows idx of a split of a loaded and measured Dataset, with labels y and ny (N,); all usable ones, with their
    clean labels, when not given."""
    if idx is None:
        idx, y, ny = split.usable, split.labels, split.labels
    device = pick_device(args.device)
    images, rows = split.place(idx, device)
    normalise = dataset.mean, dataset.std, device
    return IndexedLoader(images, y[idx], ny[idx], idx, batch_size, *normalise, rows=rows, num_workers=args.num_work)


def expected_calibration_error(confidence, correct, n_bins: int = 10) -> float:
    """ECE (Guo et al. 2017): the weighted mean gap between accuracy and mean confidence over confidence bins.

    confidence: (N,) in [0, 1], the probability of the predicted class. correct: (N,) bool, whether it is
    right. Bins are (0, 1/n], (1/n, 2/n], ... (a confidence of 0 counts in the first). Arrays or tensors.
    Returns a float in [0, 1]. Raises ValueError for empty or unequal inputs.
    """
    confidence, correct = torch.as_tensor(confidence).cpu(), torch.as_tensor(correct).cpu()
    if confidence.ndim != 1 or confidence.shape != correct.shape or not len(confidence):
        raise ValueError(
            f"expected two (N,) arrays with N > 0, found {tuple(confidence.shape)} and {tuple(correct.shape)}"
        )
    # Edges in the precision of the confidences: .3 in float32 is not .3 in float64
    edges = (torch.arange(1, n_bins, dtype=torch.float64) / n_bins).to(confidence.dtype)
    bins = torch.bucketize(confidence, edges)  # edge i-1 < confidence <= edge i
    gaps = torch.bincount(bins, weights=correct.double() - confidence.double(), minlength=n_bins)
    return float(gaps.abs().sum() / len(confidence))
