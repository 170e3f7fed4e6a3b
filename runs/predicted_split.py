"""What a finished run's network predicts of its validation or test split, as a Recorded path of one step.

For label errors in samples that were not trained on; their learning paths were never recorded.
"""

from argparse import Namespace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from common.errors import BadInput
from common.files import check_intact
from common.hardware import Hardware
from common.untrusted import load_npz, valid_text
from data.datasets import Split
from models import load_weights
from paths.recorded import Recorded
from runs.recorded_run import folder_of_files, pictures_of
from runs.run_folder import checkpoint_path, data_of, last_kept, network_of, read_args
from utils import split_loader


def open_split(folder: str, split: str, data_dir: str | None = None) -> Recorded:
    """The Recorded path of `split`, valid or test, by the run's last weights. data_dir: where its data lies now.

    Of a validation split that was taken from the training set idx is the row there. BadInput where a run has no
    such split, or its data are not there.
    """
    folder, settings = Path(folder), read_args(folder)
    resolved, dataset = settings["resolved"], data_of(folder, settings, data_dir)
    kept = load_npz(check_intact(folder / "labels.npz"), ["ny", "valid_idx"])
    if split == "valid" and kept["valid_idx"].size:
        samples, rows, came_from = Split(dataset.train.images, kept["ny"]), kept["valid_idx"], "train"
    else:
        samples, came_from = getattr(dataset, split), split
        if samples is None or (split == "valid" and not settings["valid_size"]):
            raise BadInput(f"--split valid: {folder} has no validation split; give test or train")
        rows = samples.usable
    if settings["train_on"] == "test":  # cifar10h_gen_path.py exchanged its splits
        came_from = {"test": "train", "train": "test"}[came_from]
    hardware = Hardware.choose(Namespace(device="auto", amp="off", compile="off", deterministic=False))
    model = load_weights(network_of(folder, settings), checkpoint_path(folder, "--split", last_kept(folder)))
    forward = hardware.forward_of(hardware.place(model).eval())
    where = Namespace(device="auto", num_work=settings["num_work"])
    path = np.zeros((len(samples.labels), 1, resolved["num_classes"]), np.float32)
    with torch.no_grad():
        for x, _, _, idx in split_loader(where, dataset, samples, rows, samples.labels, samples.labels):
            path[idx.cpu().numpy(), 0] = F.softmax(forward(x), 1).cpu().numpy()
    # names of the split, also where there are no files: so marks.csv fits no other split
    files, files_in = [f"{came_from}/{i}" for i in range(len(path))], folder_of_files(samples.images, resolved)
    if files_in is not None:
        own = samples.images.root.relative_to(files_in)  # a split's folder may be val/ or have another name
        files = [(own / name).as_posix() for name in samples.images.paths]
    return Recorded(
        name=f"{valid_text(folder.resolve().name)}, {split} split",
        path=path,
        given=samples.labels,
        class_names=[valid_text(str(name)) for name in resolved["class_names"]],
        original=samples.labels,
        files=files,
        files_in=files_in,
        images=pictures_of(samples.images),
        step_name="prediction",
    )
