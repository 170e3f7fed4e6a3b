"""What every script shares: the common flags, the seeds, the indexed noisy-label loaders, calibration error.

args = experiment_parser("my experiment").parse_args()
train, valid, test = get_loaders(args)
for x, y, ny, idx in train:    # clean label, possibly noisy label, the sample's row in the training split
    ...
"""

from dataclasses import dataclass

import numpy as np
import torch

from common import errors
from common.errors import BadInput, CheckedParser, one_of
from common.hardware import pick_device, usable_cpus
from data import augment, noise
from data.datasets import DATASETS, TEST_SIZE, Dataset, Split, fingerprint, open_dataset
from data.loader import IndexedLoader
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
        type=errors.count,
        default=None,
        help="folder, tinyimagenet: side in pixels; shorter side resized, centre cut out (64 when not given)",
    )
    flag("--train_size", type=errors.count, default=None, help="train on a class-balanced subset of this many")
    flag(
        "--valid_size",
        type=errors.not_negative,
        default=0.1,
        help="validation split of the training set: below 1 a share, from 1 a count; 0: none (then the test set "
        "chooses epochs, in scripts that choose any)",
    )
    flag(
        "--test_size",
        type=errors.value("expected a number above 0 and below 1", float, lambda v: 0 < v < 1),
        default=TEST_SIZE,
        help="folder without train/ and test/: share that is tested on, chosen by a hash of each file",
    )
    flag("--skip_bad", action="store_true", help="folder, tinyimagenet: leave out images that cannot be read")
    flag("--augment", default="auto", help="random shifts and flips; auto goes by image size", **one_of(augment.KINDS))
    flag(
        "--num_work",
        type=errors.whole,
        default=min(4, usable_cpus()),
        help="worker processes for images that do not fit in memory (as many as processors, up to 4)",
    )

    flag = parser.add_argument_group("label noise").add_argument
    flag("--ny_ratio", type=errors.share, default=0.0, help="share of training labels drawn to be noisy")
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
    flag("--width", type=errors.count, default=1, help="smallcnn: multiplies the channels")
    flag("--norm", default="batch", help="normalisation layers", **one_of(["batch", "group"]))
    flag(
        "--init",
        default="torchvision",
        help="how the first weights are drawn: as torchvision does, or with torch's defaults as the published code",
        **one_of(["torchvision", "published"]),
    )
    flag("--pretrained", action="store_true", help="start from torchvision's ImageNet weights, with their stem")

    flag = parser.add_argument_group("training").add_argument
    flag("--lr", type=errors.positive, default=0.1, help="SGD's learning rate")
    flag("--momentum", type=errors.share, default=0.9, help="SGD's momentum")
    flag("--weight_decay", type=errors.not_negative, default=5e-4, help="SGD's weight decay")
    flag(
        "--scheduler",
        default="cosine",
        help="cosine over all epochs to 1e-5, or multi: a tenth at each of epochs 80, 120, 160, 180",
        **one_of(["cosine", "multi"]),
    )
    flag("--warmup", type=errors.whole, default=0, help="epochs over which the learning rate rises to the schedule's")
    flag("--epochs", type=errors.count, default=200, help="passes over the training set")
    flag("--batch_size", type=errors.count, default=250, help="samples an update, of all processes together")
    flag("--accumulate", type=errors.count, default=1, help="parts a batch is computed in, to need less memory")
    flag("--seed", type=errors.whole, default=10086, help="of weights, order and augmentation")
    flag(
        "--data_seed",
        type=errors.whole,
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
    flag("--dist_timeout", type=errors.count, default=600, help="torchrun: seconds to wait for a process that is stuck")
    flag("--deterministic", action="store_true", help="the same seed gives the same run on a GPU, too; slower there")

    flag = parser.add_argument_group("the run").add_argument
    flag("--proj_name", type=errors.name, default="results", help="folder below results/, and wandb's project")
    flag(
        "--run_name",
        type=errors.name,
        default=None,
        help="name of the run (DATASET_SCHEDULER, and the noise)",
    )
    flag("--save_epochs", type=errors.whole, nargs="*", default=[], help="epochs to keep, beside best and last")
    flag(
        "--eval_train",
        action="store_true",
        help="training figures from a clean pass at each epoch's end; its loss is cross-entropy",
    )
    flag("-r", "--resume", action="store_true", help="go on with the run of this name, if it has begun")
    flag("--save_every", type=errors.count, default=1, help="epochs from one saving of last.pt to the next")
    flag("--save_minutes", type=errors.positive, default=10, help="within an epoch, last.pt is saved this often")
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
        path, key = noise.split_file_and_key(args.ny_file)
        return f"_n{path.stem}" + (f"_{key}" if key else "")
    return f"_n{args.ny_ratio:g}" if args.ny_ratio else ""


def noise_in_words(args):
    """The label noise that args ask for, for a person to read."""
    if args.ny_file:
        return f"labels of {args.ny_file}"
    return f"{args.ny_kind} noise of ratio {args.ny_ratio:g}" if args.ny_ratio else "no label noise"


# ---------------------------------------------------------------------------------------------- seeds

ROLES = ("weights", "order", "augmentation", "dropout", "noise", "subset", "validation")


def role_seed(seed, role):
    """A seed of its own for each role, so that drawing more of one thing changes nothing else."""
    return int(np.random.SeedSequence([seed, ROLES.index(role)]).generate_state(1, np.uint64)[0] >> 1)


def generator(seed, role):
    return torch.Generator().manual_seed(role_seed(seed, role))


def with_weight_seed(seed, build):
    """build()'s result, its weights drawn from the seed of the weights; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):  # weights are drawn on the CPU: no GPU's generator is asked or seeded
        torch.default_generator.manual_seed(role_seed(seed, "weights"))
        return build()


# --------------------------------------------------------------------------------------- data and loaders


@dataclass
class LabelledData:
    """A data set with its noise and its splits.

    y, ny: (N,) int64, clean and possibly noisy label of every row of the training split. train_idx,
    valid_idx: rows trained on, rows held out of them; sorted. valid_idx is empty without such a split. marks: of
    marks.csv, as they judge ny, where ny come from there; their original is y.
    """

    dataset: Dataset
    y: np.ndarray
    ny: np.ndarray
    train_idx: np.ndarray
    valid_idx: np.ndarray
    marks: noise.Marks | None = None

    @property
    def corrected(self):
        """Whether ny are labels that a person corrected: where they differ from y, nobody knows that ny is wrong."""
        return self.marks is not None

    @property
    def noise_realised(self):
        """The share of labels that are wrong, as far as anybody knows."""
        return 0.0 if self.corrected else noise.realised_rate(self.y, self.ny)

    @property
    def not_trained_on(self):
        """Names of the classes of which no sample is trained on, by the labels that are taken for right."""
        labels = self.ny if self.corrected else self.y
        there = np.bincount(labels[self.train_idx], minlength=self.dataset.num_classes)
        return [name for name, count in zip(self.dataset.class_names, there, strict=True) if not count]

    def fingerprints(self):
        """Names the labels in files that depend on them: SHA-256 of y and ny."""
        return {"y_sha256": fingerprint(self.y), "ny_sha256": fingerprint(self.ny)}


def check_data(args, dataset):
    """BadInput naming all that is wrong with the flags for noise, subset, split and batch; downloads nothing."""
    problems = errors.Problems()
    if args.ny_file and args.ny_ratio:
        problems.add(
            f"--ny_file {args.ny_file} and --ny_ratio {args.ny_ratio:g}: one of them gives the noise; drop one"
        )
    elif args.ny_file:
        with problems.collect():
            _read_noise_file(args, dataset)
    given = getattr(args, "given", set())
    if "ny_kind" in given and "ny_ratio" not in given and not args.ny_ratio:
        problems.add(f"--ny_kind {args.ny_kind}: there is no noise without --ny_ratio; give it too")
    if dataset.num_classes < 2:
        problems.add(f"--dataset {args.dataset}: the training set has one class only; two are needed")
    in_use = args.train_size or dataset.num_usable
    if in_use > dataset.num_usable:
        bad = dataset.num_train - dataset.num_usable
        problems.add(
            f"--train_size {args.train_size}: the training set has {dataset.num_usable} samples"
            f"{f', and {bad} that cannot be read' if bad else ''}; give at most that"
        )
    elif args.train_size and in_use < dataset.num_classes:
        problems.add(
            f"--train_size {args.train_size}: fewer than the {dataset.num_classes} classes; give one of each at least"
        )
    else:
        with problems.collect():
            left = in_use - _valid_count(args, dataset, in_use)
            if args.batch_size > left:
                problems.add(
                    f"--batch_size {args.batch_size}: larger than the {left} samples that are trained on; "
                    "give a smaller one"
                )
            elif left < 2:
                problems.add(f"--valid_size {args.valid_size:g}: leaves {left} sample to train on; two are needed")
    problems.stop_if_any()


def load_data(args, dataset=None):
    """LabelledData: noise over all rows; of the usable ones the class-balanced subset, then the validation rows.

    Each has its own seed, so that the noisy label of a row depends on data seed, kind and ratio alone.
    Downloads what is absent (errors.NeedsDownload if it cannot).
    """
    if dataset is None:
        dataset = open_dataset(args)
        check_data(args, dataset)
    dataset.load()
    data_seed = args.seed if args.data_seed is None else args.data_seed
    y, marks, rows = np.asarray(dataset.train.labels, np.int64), None, dataset.train.usable
    if args.ny_file:
        marks = noise.read_marks(args.ny_file, len(y), dataset.class_names, dataset.train_paths, original=y)
        ny = _read_noise_file(args, dataset) if marks is None else marks.label
        noise.check_alignment(args.ny_file, y, dataset.class_names)
    else:
        ny = noise.add_label_noise(y, dataset.num_classes, args.ny_ratio, args.ny_kind, role_seed(data_seed, "noise"))
    if args.train_size:
        rows = rows[_balanced_subset(y[rows], args.train_size, dataset.num_classes, role_seed(data_seed, "subset"))]
    held_out = _valid_count(args, dataset, len(rows))
    if args.valid_rows == "last":
        order = np.arange(len(rows))
    else:
        order = np.random.default_rng(role_seed(data_seed, "validation")).permutation(len(rows))
    cut = len(rows) - held_out
    train, valid = np.sort(rows[order[:cut]]), np.sort(rows[order[cut:]])
    if marks is not None:
        marks = marks.of(ny)
        train, valid = (rows[marks.mark[rows] != "drop"] for rows in (train, valid))
        if len(train) < max(args.batch_size, 2):
            raise BadInput(
                f"--ny_file {args.ny_file}: leaves {len(train)} samples to train on, the rest is marked drop; "
                "take marks back, or give a smaller --batch_size"
            )
    return LabelledData(dataset, y, ny, train, valid, marks)


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


def _read_noise_file(args, dataset):
    return noise.read_labels(args.ny_file, dataset.num_train, dataset.class_names, dataset.train_paths)


def _valid_count(args, dataset, in_use):
    """Rows to hold out of the in_use training rows; none where the data set brings a validation split."""
    if args.valid_size == 0 or dataset.valid:
        return 0
    held_out = int(args.valid_size * in_use + 1e-9) if args.valid_size < 1 else int(args.valid_size)
    if args.valid_size > 1 and held_out != args.valid_size:
        raise BadInput(f"--valid_size {args.valid_size:g}: below 1 it is a share, from 1 on a whole number of samples")
    if not 0 < held_out < in_use:
        raise BadInput(
            f"--valid_size {args.valid_size:g}: holds out {held_out} of {in_use} samples; "
            "some must be left on both sides (0: no validation split)"
        )
    return held_out


def _balanced_subset(labels, size, num_classes, seed):
    """`size` rows, as equally many of each class as there are; sorted."""
    order = np.random.default_rng(seed).permutation(len(labels))
    # A row's turn is its place among the drawn rows of its class: taking the rows with the earliest turns
    # takes one of every class after another, and goes on with the rest when a small class is used up.
    turn = np.empty(len(labels), np.int64)
    for k in range(num_classes):
        of_class = order[labels[order] == k]
        turn[of_class] = np.arange(len(of_class))
    return np.sort(order[np.argsort(turn[order], kind="stable")][:size])


# ---------------------------------------------------------------------------------------- calibration


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
