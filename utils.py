"""What every script shares: the common flags, the seeds, the indexed noisy-label loaders, calibration error.

args = experiment_parser("my experiment").parse_args()
train, valid, test = get_loaders(args)
for x, y, ny, idx in train:    # clean label, possibly noisy label, the sample's row in the training split
    ...
"""

import torch

from common import flags
from common.flags import CheckedParser, one_of
from common.hardware import pick_device, usable_cpus
from data import augment, noise
from data.datasets import DATASETS, TEST_SIZE, Split
from data.label_files import split_file_and_key
from data.labels import load_data
from data.loader import IndexedLoader
from data.seeds import generator
from models import NETS

EVAL_BATCH = 500


# ---------------------------------------------------------------------------------------------- flags


def experiment_parser(description, **defaults):
    """An argparse parser with the flags that every training script has; `defaults` replaces defaults."""
    parser = CheckedParser(description=description)
    flag = parser.add_argument_group("data").add_argument
    flag("--dataset", default="cifar10", help="where images and labels come from", **one_of(DATASETS))
    flag(
        "--data_dir",
        default=None,
        help="root for downloads (./datasets when not given); the folder of folder and tinyimagenet, the file of npz",
    )
    flag(
        "--image_size",
        type=flags.count,
        default=None,
        help="folder, tinyimagenet: side in pixels; shorter side resized, centre cut out (64 when not given)",
    )
    flag("--train_size", type=flags.count, default=None, help="train on a class-balanced subset of this many")
    flag(
        "--valid_size",
        type=flags.not_negative,
        default=0.1,
        help="validation split of the training set: below 1 a share, from 1 a count; 0: none (then the test set "
        "chooses epochs, in scripts that choose any)",
    )
    flag(
        "--test_size",
        type=flags.value("expected a number above 0 and below 1", float, lambda v: 0 < v < 1),
        default=TEST_SIZE,
        help="folder without train/ and test/: share that is tested on, chosen by a hash of each file",
    )
    flag("--skip_bad", action="store_true", help="folder, tinyimagenet: leave out images that cannot be read")
    flag("--augment", default="auto", help="random shifts and flips; auto goes by image size", **one_of(augment.KINDS))
    flag(
        "--num_work",
        type=flags.whole,
        default=min(4, usable_cpus()),
        help="worker processes for images that do not fit in memory (as many as processors, up to 4)",
    )

    flag = parser.add_argument_group("label noise").add_argument
    flag("--ny_ratio", type=flags.share, default=0.0, help="share of training labels drawn to be noisy")
    flag(
        "--ny_kind",
        default="symmetric",
        help="symmetric may draw a label's own class again (as published), "
        "symmetric_exclusive never does, pair moves class k to k+1",
        **one_of(noise.KINDS),
    )
    flag("--ny_file", default=None, metavar="FILE[:KEY]", help="noisy labels made by people: .pt, .npy, .npz, .csv")

    flag = parser.add_argument_group("network").add_argument
    flag("--net", default="resnet18", help="the network to train", **one_of(NETS))
    flag("--width", type=flags.count, default=1, help="smallcnn: multiplies the channels")
    flag("--norm", default="batch", help="normalisation layers", **one_of(["batch", "group"]))
    flag(
        "--init",
        default="torchvision",
        help="how the first weights are drawn: as torchvision does, or with torch's defaults as the published code",
        **one_of(["torchvision", "published"]),
    )
    flag("--pretrained", action="store_true", help="start from torchvision's ImageNet weights, with their stem")

    flag = parser.add_argument_group("training").add_argument
    flag("--lr", type=flags.positive, default=0.1, help="SGD's learning rate")
    flag("--momentum", type=flags.share, default=0.9, help="SGD's momentum")
    flag("--weight_decay", type=flags.not_negative, default=5e-4, help="SGD's weight decay")
    flag(
        "--scheduler",
        default="cosine",
        help="cosine over all epochs to 1e-5, or multi: a tenth at each of epochs 80, 120, 160, 180",
        **one_of(["cosine", "multi"]),
    )
    flag("--warmup", type=flags.whole, default=0, help="epochs over which the learning rate rises to the schedule's")
    flag("--epochs", type=flags.count, default=200, help="passes over the training set")
    flag("--batch_size", type=flags.count, default=250, help="samples an update, of all processes together")
    flag("--accumulate", type=flags.count, default=1, help="parts a batch is computed in, to need less memory")
    flag("--seed", type=flags.whole, default=10086, help="of weights, order and augmentation")
    flag(
        "--data_seed",
        type=flags.whole,
        default=None,
        help="of noise, subset and validation split (--seed's when not given; a student: its teacher's)",
    )

    flag = parser.add_argument_group("hardware").add_argument
    flag(
        "--device", default="auto", help="auto: CUDA, else MPS, else the CPU", **one_of(["auto", "cpu", "cuda", "mps"])
    )
    flag(
        "--amp",
        default="auto",
        help="mixed precision; auto: bfloat16 where the hardware has it",
        **one_of(["auto", "off", "bf16", "fp16"]),
    )
    flag(
        "--compile", default="auto", help="torch.compile; auto: for long runs on CUDA", **one_of(["auto", "on", "off"])
    )
    flag("--sync_bn", action="store_true", help="torchrun, CUDA: BatchNorm's statistics of the whole batch")
    flag("--dist_timeout", type=flags.count, default=600, help="torchrun: seconds to wait for a process that is stuck")
    flag("--deterministic", action="store_true", help="the same seed gives the same run on a GPU, too; slower there")

    flag = parser.add_argument_group("the run").add_argument
    flag("--proj_name", type=flags.name, default="results", help="folder below results/, and wandb's project")
    flag(
        "--run_name",
        type=flags.name,
        default=None,
        help="name of the run (DATASET_SCHEDULER, and the noise)",
    )
    flag("--save_epochs", type=flags.whole, nargs="*", default=[], help="epochs to keep, beside best and last")
    flag(
        "--eval_train",
        action="store_true",
        help="training figures from a clean pass at each epoch's end; its loss is cross-entropy",
    )
    flag("-r", "--resume", action="store_true", help="go on with the run of this name, if it has begun")
    flag("--save_every", type=flags.count, default=1, help="epochs from one saving of last.pt to the next")
    flag("--save_minutes", type=flags.positive, default=10, help="within an epoch, last.pt is saved this often")
    flag("--overwrite", action="store_true", help="replace a run of the same name")
    flag("--wandb", default="disabled", help="track with Weights & Biases", **one_of(["disabled", "online", "offline"]))
    flag("--check", action="store_true", help="check everything, print the resolved settings, start nothing")
    parser.set_defaults(**{"valid_rows": "random", "train_on": "train", **defaults})
    return parser


def run_name(args, mark=""):
    """--run_name, or DATASET_SCHEDULER and, under noise, _nRATIO or _nFILE: never a random name.

    mark: stands after DATASET.
    """
    if args.run_name is not None:
        return args.run_name
    return f"{args.dataset}{mark}_{args.scheduler}{noise_suffix(args)}"


def noise_suffix(args):
    """_nRATIO, _nFILE or _nFILE_KEY, or nothing without noise: the end of a run's name."""
    if args.ny_file:
        path, key = split_file_and_key(args.ny_file)
        return f"_n{path.stem}" + (f"_{key}" if key else "")
    return f"_n{args.ny_ratio:g}" if args.ny_ratio else ""


def noise_in_words(args):
    """The label noise that args ask for, for a person to read."""
    if args.ny_file:
        return f"labels of {args.ny_file}"
    return f"{args.ny_kind} noise of ratio {args.ny_ratio:g}" if args.ny_ratio else "no label noise"


# --------------------------------------------------------------------------------------- data and loaders


def get_loaders(args, data=None):
    """(train, valid, test) loaders of (x, y, ny, idx), see data.loader.IndexedLoader.

    train shuffles and augments. valid is None with --valid_size 0 and carries its noisy labels in ny where it
    was split off; test always carries clean labels. idx is the row in the set's own training split (in test,
    and in a validation split that the data set brings: in that split).
    """
    data = data or load_data(args)
    dataset = data.dataset
    dataset.measure()
    rows = Split(dataset.train.images, data.ny) if data.corrected else dataset.train
    train = _loader(
        args,
        dataset,
        rows,
        data.train_idx,
        data.ny,
        args.batch_size,
        order=generator(args.seed, "order"),
        augmentation=generator(args.seed, "augmentation"),
        augment_kind=augment.resolve(args.augment, dataset.image_size, dataset.channels),
    )
    valid = None
    if len(data.valid_idx):
        valid = _loader(args, dataset, rows, data.valid_idx, data.ny)
    elif dataset.valid and args.valid_size:
        valid = _whole_split(args, dataset, dataset.valid)
    return train, valid, get_test_loader(args, dataset)


def get_test_loader(args, dataset):
    """The test split of a loaded and measured Dataset alone, in order, with its clean labels."""
    return _whole_split(args, dataset, dataset.test)


def _whole_split(args, dataset, split):
    return _loader(args, dataset, split, split.usable, split.labels)


def _loader(args, dataset, split, rows, ny, batch_size=EVAL_BATCH, **settings):
    device = pick_device(args.device)
    images, places = split.place(rows, device)
    return IndexedLoader(
        images,
        split.labels[rows],
        ny[rows],
        rows,
        batch_size,
        dataset.mean,
        dataset.std,
        device,
        rows=places,
        num_workers=args.num_work,
        **settings,
    )


def expected_calibration_error(confidence, correct, n_bins=10):
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
