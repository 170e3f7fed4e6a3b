"""Out-of-fold predictions, what confident learning is made for: a network for each fifth, trained on the others."""

import dataclasses
import json
import time

import numpy as np
import torch
import torch.nn.functional as F

from main_gen_path import make_parser
from supervision.losses import cross_entropy
from supervision.targets import OneHot
from training.experiment import Experiment
from training.loop import learning_rate, predict, train_epoch
from utils import get_loaders

FOLDS = 5


def out_of_fold(flags, folder):
    """Write folder/out_of_fold.npy (n, K), row by row as the run's samples, and the CPU seconds that it took.

    flags: those of main_gen_path.py that made the run in folder.
    """
    args = make_parser().parse_args([*flags, "--record", "none"])
    experiment = Experiment(args, folder / "unused", selects=False).start()
    rows, everyone = experiment.data.train_idx, experiment.train_loader.clean()
    fold = np.random.default_rng(args.seed).permutation(len(rows)) % FOLDS
    held_out = np.zeros((len(rows), experiment.dataset.num_classes), np.float32)
    started = time.process_time()
    for k in range(FOLDS):
        held_out[fold == k] = _train_and_predict(experiment, rows[fold != k], everyone.of_samples(rows[fold == k]))
        print(f"{folder}: fold {k + 1} of {FOLDS}", flush=True)
    (folder / "out_of_fold.json").write_text(json.dumps(time.process_time() - started))
    np.save(folder / "out_of_fold.npy", held_out)


def _train_and_predict(experiment, rows, loader):
    args = experiment.args
    data = dataclasses.replace(experiment.data, train_idx=rows)
    experiment.train_loader = get_loaders(args, data)[0]
    state = experiment.new_state()
    forward = experiment.hardware.forward_of(state.model)
    for epoch in range(args.epochs):
        target = OneHot(experiment.dataset.num_classes)
        train_epoch(state, forward, target, cross_entropy, learning_rate(epoch, args))
        state.end_epoch()
    with torch.no_grad():
        return F.softmax(predict(state.model, forward, loader)[0], 1).cpu().numpy()
