"""--resume: going on with the run in a folder, under the settings that it has."""

import json
from pathlib import Path

from common.errors import BadInput
from common.files import check_intact, read_json
from common.hardware import DECIDING, TOLD
from common.untrusted import load_pt

# Flags that may differ from the run's: they change nothing of what is learned, say where things lie now (what the
# files hold is compared instead), or are compared elsewhere.
FREE = set(
    "resume overwrite check jobs only_seed save_every save_minutes num_work wandb proj_name run_name path data_dir "
    "data_backend cache_dir human_probs teach_path true_probs ny_file device amp compile epochs accumulate "
    "dist_timeout".split()
)
MOVABLE = {"teacher"}  # of "resolved": where it lies, not what it is


def has_progress(folder: Path) -> bool:
    """Whether a run's folder, or one of the runs in a comparison's, holds something to go on with.

    BadInput when it did and the file is lost: to start anew would replace what is left of that run.
    """
    folder = Path(folder)
    for metrics in _of_each_run(folder, "metrics.csv"):  # is written after the first last.pt
        if not metrics.with_name("last.pt").is_file():
            raise BadInput(
                f"{metrics.with_name('last.pt')}: is lost, though the run had saved it; take it from a copy, or give "
                "--overwrite to start anew"
            )
    return bool(_of_each_run(folder, "last.pt"))


def _of_each_run(folder, name):
    return [*folder.glob(name), *folder.glob(f"seed_*/*/{name}")]


def take_over(args, folder):
    """Give args the settings of the run that --resume goes on with; BadInput for all flags that contradict them.

    Returns the run's environment.json, or None where there is nothing to go on with: then it starts anew.
    """
    if args.overwrite and args.resume:
        raise BadInput("--resume and --overwrite: one goes on with the run, the other replaces it; give one of them")
    if not has_progress(folder):
        return None
    saved, environment = read_json(check_intact(folder / "args.json")), read_environment(folder)
    wrong = []
    for name, ours in list(vars(args).items()):
        if name not in saved or name in ("given", "resume", "overwrite", "check"):
            continue
        if name not in args.given:
            setattr(args, name, saved[name])
        elif name not in FREE and json.loads(json.dumps(ours)) != saved[name]:
            wrong.append(_contradiction(name, ours, folder, saved[name]))
    grows = args.epochs > saved["epochs"] and saved["scheduler"] == "multi" and "seeds" not in saved
    if args.epochs != saved["epochs"] and not grows:
        why = (
            "; --scheduler multi alone can go on for longer, and no comparison" if args.epochs > saved["epochs"] else ""
        )
        wrong.append(_contradiction("epochs", args.epochs, folder, saved["epochs"]) + why)
    if wrong:
        raise BadInput(*wrong)
    args.given = args.given | set(saved.get("given", ()))
    return environment


def _contradiction(name, ours, folder, theirs):
    return f"--{name} {ours}: the run in {folder} has {theirs}; leave the flag out, or choose another name for the run"


def check_resolved(folder: Path, saved: dict, now: dict):
    """BadInput when data, labels or teacher are no longer those of the run: settings["resolved"] saved and now."""
    now = json.loads(json.dumps(now))
    for name in saved.keys() & now.keys() - MOVABLE:
        if saved[name] != now[name]:
            short = {key: str(value)[:24] for key, value in (("there", saved[name]), ("here", now[name]))}
            raise BadInput(
                f"--resume: {name} is {short['there']} in {folder} and {short['here']} here: data, labels or teacher "
                "are others; give those that the run was started with"
            )


def read_environment(folder: Path) -> dict:
    """A run's environment.json. BadInput when it is damaged or lacks what decides how networks are run."""
    file = folder / "environment.json"
    found = read_json(check_intact(file))
    if not {*DECIDING, *TOLD} <= found.keys():
        raise BadInput(f"{file}: does not say what the run ran on; take an intact copy")
    return found


def read_last(file: Path) -> dict:
    """The contents of last.pt. BadInput when it is damaged."""
    return load_pt(check_intact(file))
