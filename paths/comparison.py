"""Samples of one run beside the same samples in another: a noisy run beside a clean one."""

import warnings

import numpy as np

from common.errors import BadInput
from common.plots import evenly
from data.label_files import agree_by_chance
from paths import pictures
from paths.pictures import Scene

SAMPLES = 4


def check_comparable(first, other, flag_value):
    """BadInput when two Recorded are of other data; warn when one is longer."""
    if first.path.shape[::2] != other.path.shape[::2]:
        raise BadInput(f"--compare {flag_value}: follows other samples or classes; give a run on the same data")
    known = [r.given if r.clean is None else r.clean for r in (first, other)]
    if agree_by_chance(*known, first.path.shape[2]):
        raise BadInput(
            f"--compare {flag_value}: its labels agree with those of {first.name} no more than by chance; "
            "give a run on the same data"
        )
    lengths = [r.path.shape[1] for r in (first, other)]
    if lengths[0] != lengths[1]:
        warnings.warn(
            f"--compare {flag_value}: has {lengths[1]} {other.step_name}s, {first.name} {lengths[0]}; steps that are "
            f"as far along are shown beside each other, under the numbers of {first.name}'s",
            stacklevel=2,
        )


def draw_beside(analysis, other, out, samples=None):
    """compare_simplex.png and compare_probabilities.png of an Analysis and a second Recorded.

    samples: idx to draw; else samples mislabelled in one of the runs, where that is known and there are any, else top
    suspects of the first. Raises BadInput when the runs follow no sample in common.
    """
    first = analysis.recorded
    both = analysis.order[other.path[analysis.order, 0].any(1)]
    if not len(both):
        raise BadInput(f"--compare: {first.name} and {other.name} follow no sample in common; give other runs")
    asked = both[np.isin(both, samples or [])]
    wrong = next((r.wrong for r in (first, other) if r.wrong is not None), np.zeros(len(first.given), bool))
    mislabelled = both[wrong[both]]
    some = mislabelled[evenly(len(mislabelled), SAMPLES)] if len(mislabelled) else both[:SAMPLES]
    chosen = asked if len(asked) else some
    truth = next((r.clean for r in (first, other) if r.clean is not None), None)
    probs = first.true_probs if other.true_probs is None else other.true_probs
    scene = Scene(
        np.concatenate([r.path[chosen][:, evenly_to(first.path.shape[1], r.path.shape[1])] for r in (first, other)]),
        np.concatenate([r.given[chosen] for r in (first, other)]),
        first.class_names,
        *(None if values is None else np.concatenate([values[chosen]] * 2) for values in (truth, probs)),
        idx=np.tile(chosen, 2),
        smoothing=analysis.smoothing,
        step_name=first.step_name,
    )
    names = first.name, other.name if other.name != first.name else f"{other.name} (2)"
    groups = {names[0]: list(range(len(chosen))), names[1]: list(range(len(chosen), 2 * len(chosen)))}
    title = f"{names[0]} beside {names[1]}"
    pictures.simplex_paths(scene, groups, out / "compare_simplex.png", title)
    pictures.probabilities_over_time(scene, groups, out / "compare_probabilities.png", title)


def evenly_to(count, of):
    """The step of a path of `of` steps that is as far along as each of `count` steps."""
    return np.linspace(0, of - 1, count).round().astype(int)
