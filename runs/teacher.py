"""A finished run as a teacher: finding it, inheriting its data settings, reading its network or its table."""

import contextlib
import re
import sys
import warnings
from pathlib import Path

from common.errors import BadInput
from common.files import read_json
from models import build_model, check_net, load_weights
from runs.run_folder import INHERITED, RESULTS, check_sizes, checkpoint_path, network_of, read_args, read_metrics
from supervision.table import sidecar_path
from supervision.tables import ENDINGS, load_table

EARLY = 0.25  # weight of the first prediction from which a table counts as an early one


class Teacher:
    """The run folder that --teach_path names: a name below results/Gen_teacher, or a path.

    teach_type: "net", "table", or another when only its data settings are wanted; teach_name: which of its files.
    args: its args.json, or None for a folder without one, such as the published code's.
    """

    def __init__(self, teach_path, teach_type, teach_name):
        self.name = teach_name
        candidates = [RESULTS / "Gen_teacher" / teach_path, Path(teach_path)]
        self.path = next((path for path in candidates if path.is_dir()), None)
        if self.path is None:
            raise BadInput(
                f"--teach_path {teach_path}: no such run below {candidates[0].parent} and no such folder; "
                "train one with main_gen_teacher.py, or give a run's folder"
            )
        self.args = read_args(self.path) if (self.path / "args.json").exists() else None
        self.table_path = None
        if teach_type == "table":
            candidates = [self.path / f"{teach_name}{ending}" for ending in ENDINGS]
            self.table_path = next((path for path in candidates if path.is_file()), candidates[0])

    def pass_on_settings(self, args):
        """Give args the teacher's data settings; BadInput for a flag that contradicts them."""
        if self.args is None:
            return
        for name in INHERITED:
            theirs, ours = self.args[name], getattr(args, name)
            if name not in args.given:
                setattr(args, name, theirs)
            elif theirs != ours and not (name == "ny_file" and theirs and ours):  # which may lie elsewhere now
                raise BadInput(
                    f"--{name} {ours}: the teacher in {self.path} has {name} {theirs}; "
                    "leave the flag out, or take another teacher"
                )
        if "data_dir" not in args.given:
            args.data_dir = self.args["data_dir"]

    def check_data(self, data):
        """BadInput that says what differs when the teacher was trained on other data or labels than `data` has."""
        if self.args is not None:
            check_sizes(f"the teacher in {self.path}", self.args["resolved"], data.dataset)
            _compare(f"the teacher in {self.path}", self.args["resolved"], data)
        if self.table_path:
            _compare(self.table_path, self._sidecar(self.table_path), data)

    def describe(self, teach_type):
        """Who teaches, in lines for a person: which file, of which epoch, how accurate; a hint where it is early."""
        file = self.table_path if teach_type == "table" else self.path / f"{self.name}.pt"
        sidecar = self._sidecar(self.path / f"{self.name}.npy")  # of the same epoch as the network
        named = re.fullmatch(r"epoch_(\d+)", self.name)
        epoch = int(named[1]) if named else sidecar.get("epoch")
        what = "network" if teach_type == "net" else teach_type
        lines = [f"the teacher is the {what} {file}" + ("" if epoch is None else f", of epoch {epoch}")]
        lines[0] += self._accuracies(epoch)
        if teach_type == "table" and epoch is not None and "smoothing" in sidecar:
            first = (1 - sidecar["smoothing"]) ** epoch  # it was stored, then averaged once an epoch
            if first >= EARLY:
                lines.append(
                    f"hint: each sample's first prediction still weighs {first:.2f} in it, (1 - smoothing)^epoch; "
                    "a table of a later epoch has averaged more (--teach_name)"
                )
        return lines

    def _accuracies(self, epoch):
        """Of an epoch, in words, where the teacher's folder says them."""
        found = {}
        with contextlib.suppress(OSError, ValueError):
            row = next((row for row in read_metrics(self.path) if row.get("epoch") == epoch), {})
            columns = {"validation": "valid_acc", "test": "test_acc"}
            found = {name: row[column] for name, column in columns.items() if column in row}
        return "".join(f", {name} accuracy {accuracy:.4f}" for name, accuracy in found.items())

    @staticmethod
    def _sidecar(table):
        """What the .json beside a table says; nothing where there is none, or a damaged one."""
        with contextlib.suppress(BadInput):  # read_table says it when the .json is damaged
            return read_json(sidecar_path(table))
        return {}

    def file(self, ending):
        """Its checkpoint (.pt) or table (.npy, .npz). BadInput when that is missing or damaged."""
        return checkpoint_path(self.path, "--teach_name", self.name, ending)

    def read_network(self, args, dataset, teach_net=None):
        """The network of teach_name.pt, on the CPU; of a folder without args.json, what --teach_net or --net says."""
        path = self.file(".pt")
        if self.args is None:
            net = teach_net or args.net
            _warn(f"{path}: no args.json beside it; read as a {net} for {dataset.num_classes} classes")
            options = {name: getattr(args, name) for name in ("width", "norm", "pretrained")}
            check_net(net, dataset.image_size, channels=dataset.channels, flag="--teach_net", **options)
            model = build_model(net, dataset.num_classes, dataset.image_size, dataset.channels, fetch=False, **options)
        else:
            if teach_net not in (None, self.args["net"]):
                raise BadInput(
                    f"--teach_net {teach_net}: the teacher in {self.path} is a {self.args['net']}; leave the flag out"
                )
            model = network_of(self.path, self.args)
        return load_weights(model, path)

    def read_table(self, dataset, sharded=False):
        """The table of teach_name, of the data set's shape, on the CPU. sharded: see load_table()."""
        path = self.file(self.table_path.suffix)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                table = load_table(path, sharded)
            except ValueError as problem:
                raise BadInput(str(problem)) from None
        for warning in said:
            _warn(warning.message)
        expected = (dataset.num_train, dataset.num_classes)
        if table.shape != expected:
            raise BadInput(
                f"{path}: has shape {table.shape}, the data set needs {expected} "
                "(training samples, classes); take the table of a teacher of this data"
            )
        return table


def _compare(name, theirs, data):
    """Compare the fingerprints of labels in a dict of theirs with the data's."""
    ours = data.fingerprints()
    for key, what in (("paths_sha256", "image files"), ("y_sha256", "clean labels"), ("ny_sha256", "noisy labels")):
        if key in ours and theirs.get(key, ours[key]) != ours[key]:
            raise BadInput(
                f"{name}: its {what} are not those of this data set (SHA-256 {theirs[key][:12]} there, "
                f"{ours[key][:12]} here); give the data it was trained on with --data_dir or --ny_file, "
                "or take another teacher"
            )


def _warn(message):
    print(f"warning: {message}", file=sys.stderr)
