"""The analysis of a recorded path as files: measures, suspects, distances, pictures, the page.

samples.csv, suspects.csv, steps.csv, summary.txt, PNGs, GIFs and report.html, all in one folder.
"""

import contextlib
import csv

import numpy as np

from common.untrusted import as_cell
from paths import animations, measures, pictures
from paths.label_errors import find_label_errors, reasons
from paths.pictures import Scene
from paths.report import write_report

DISAGREED = 1000  # images on which people disagree most, where their distributions are known
RANKS = {"easy": 0.61, "medium": 0.17, "hard": 0.02}  # from the hardest on: the paper's 3050, 850, 100 of 5000
EACH = 3  # samples of a group that are drawn


class Analysis:
    """What can be said of a Recorded path: its measures, its suspects, most suspicious first.

    order: idx of the visited samples, those that a person marked right after all others. num_errors: a rough guess of
    how many labels are wrong; the first num_suspects of the order are suspects: that many less those marked right.
    """

    def __init__(self, recorded, smoothing=None):
        self.recorded, self.smoothing = recorded, smoothing
        path, given = recorded.path, recorded.given
        self.measures = measures.compute(path, given, recorded.true_probs, smoothing)
        self.score, self.suggestion, self.num_errors = find_label_errors(path, given)
        visited = np.flatnonzero(np.isfinite(self.score))
        ranked = visited[np.argsort(-self.score[visited], kind="stable")]
        self.mark = np.full(len(given), "") if recorded.marks is None else recorded.marks.mark
        is_right = self.mark[ranked] == "right"
        self.order = np.concatenate([ranked[~is_right], ranked[is_right]])
        self.num_suspects = int((~is_right[: self.num_errors]).sum())
        self.reasons = reasons(path, given, self.suggestion, recorded.class_names, recorded.step_name)
        self.scene = Scene(
            path,
            given,
            recorded.class_names,
            recorded.clean,
            recorded.true_probs,
            smoothing=smoothing,
            step_name=recorded.step_name,
        )

    @property
    def difficulty(self):
        """(name, (N,)), larger is harder: |e_y - p*| where p* is known, else 1 - the label's mean probability."""
        if "base_difficulty" in self.measures:
            return "base difficulty |e_y - p*|", self.measures["base_difficulty"]
        return "1 - mean probability of the given label", 1 - self.measures["confidence"]

    def groups(self, among=None):
        """{title: idx}: easy, medium and hard samples, and mislabelled ones or, where nobody knows, top suspects.

        among: (M,) idx to choose from (all). Mislabelled ones are of evenly spaced scores, so that ones that
        the ranking misses are shown, too.
        """
        chosen = self.order if among is None else self.order[np.isin(self.order, among)]
        wrong = self.recorded.wrong
        suspects = np.isin(chosen, self.order[: self.num_suspects])
        right = chosen[~(suspects if wrong is None else wrong[chosen])]
        right = right[np.argsort(-self.difficulty[1][right], kind="stable")]
        found = {}
        for name, rank in reversed(RANKS.items()):
            start = min(int(rank * len(right)), max(len(right) - EACH, 0))
            found[name] = right[start : start + EACH].tolist()
        found = {name: found[name] for name in RANKS}
        if wrong is None:
            found["top suspects"] = chosen[:EACH].tolist()
        else:
            mislabelled = chosen[wrong[chosen]]
            places = np.linspace(0, len(mislabelled) - 1, EACH + 2).round().astype(int)[1:-1]
            found["mislabelled"] = mislabelled[np.unique(places)].tolist() if len(mislabelled) else []
        return {name: rows for name, rows in found.items() if rows}

    def distances(self):
        """{title: measures.distance_to}, {title: the given labels' own distance}: all, and where people disagree."""
        recorded, (_, reference) = self.recorded, self.recorded.reference
        visited = np.isfinite(self.score)
        masks = {"all samples": visited}
        if recorded.true_probs is not None and visited.sum() > DISAGREED:
            masks[f"the {DISAGREED:,} that people disagree on most"] = most_disputed(recorded.true_probs, visited)
        elif recorded.clean is not None:
            masks["mislabelled samples"] = recorded.wrong & visited
        labels = np.eye(recorded.path.shape[2], dtype=np.float32)[recorded.given]
        own = np.linalg.norm(labels - reference, axis=1)
        found = {
            name: measures.distance_to(recorded.path, reference, self.smoothing, mask)
            for name, mask in masks.items()
            if mask.any()
        }
        return found, {name: float(own[masks[name]].mean()) for name in found}

    def accuracies(self):
        """{name: (T,)}: of raw and filtered predictions, on the given labels and, where they are known, the clean."""
        recorded, found = self.recorded, {}
        whom = {"given": (recorded.given, None)}
        if recorded.clean is not None:
            whom |= {"clean": (recorded.clean, None), "clean_mislabelled": (recorded.clean, recorded.wrong)}
        for whose, (labels, rows) in whom.items():
            curves = measures.accuracy_of(recorded.path, labels, self.smoothing, rows)
            found |= {f"{name}_{whose}": curve for name, curve in curves.items()}
        return found

    def summary(self):
        """One line: how much is suspicious; where clean labels are known how much of that is right; what was marked."""
        recorded, n = self.recorded, len(self.order)
        text = (
            f"{recorded.name}: {n} samples, {recorded.path.shape[1]} steps; estimated label errors: {self.num_errors}"
        )
        if recorded.clean is not None:
            wrong, top = recorded.wrong, self.order[: self.num_suspects]
            right = (self.suggestion == recorded.clean)[self.order][wrong[self.order]]
            text += (
                f" (true: {wrong[self.order].sum()}, of the suspects {wrong[top].mean() if len(top) else 0:.1%} are "
                f"wrong; of the wrong ones {right.mean() if len(right) else 0:.1%} have the right suggestion)"
            )
        if kept := int((self.mark[self.order] == "right").sum()):
            text += f"; {self.num_suspects} suspects without the {kept} samples marked right"
        return f"{text}; the estimate is a rough guess that can be several times off"


def most_disputed(true_probs, among):
    """(N,) bool: of the samples `among` (N,) bool the 1,000 whose distribution of labels has the largest entropy."""
    entropy = -(true_probs * measures.log(true_probs, measures.smallest(true_probs))).sum(1)
    most = np.argsort(-np.where(among, entropy, -1), kind="stable")[:DISAGREED]
    return np.isin(np.arange(len(among)), most) & among


def write_tables(analysis, out, step_distances):
    """samples.csv, suspects.csv, and steps.csv: distances to the reference, of all samples and of some, accuracies.

    The columns of samples.csv are those of paths.measures, which says which are larger for easier samples.
    """
    recorded, names = analysis.recorded, analysis.recorded.class_names
    visited = np.sort(analysis.order)
    with csv_file(out / "samples.csv") as writer:
        known = {} if recorded.clean is None else {"clean_label": recorded.clean}
        writer.writerow(["idx", "given_label", *known, *analysis.measures])
        columns = [visited, recorded.given[visited], *(values[visited] for values in known.values())]
        columns += [[f"{v:.6g}" for v in values[visited]] for values in analysis.measures.values()]
        writer.writerows(zip(*columns, strict=True))
    with csv_file(out / "suspects.csv") as writer:
        writer.writerow(SUSPECTS)
        for place, i in enumerate(analysis.order):
            given, suggested = recorded.given[i], analysis.suggestion[i]
            file = as_cell(recorded.files[i]) if recorded.files else ""
            row = [i, file, given, as_cell(names[given]), suggested, as_cell(names[suggested])]
            reason = as_cell(analysis.reasons[i])
            suspect = int(place < analysis.num_suspects)
            writer.writerow([*row, f"{analysis.score[i]:.6g}", suspect, reason, analysis.mark[i]])
    with csv_file(out / "steps.csv") as writer:
        short = {"all samples": "", "mislabelled samples": "_mislabelled"}  # else the ones that people disagree on
        columns = {
            f"{key}{short.get(name, '_disagreed')}": curve
            for name, found in step_distances.items()
            for key, curve in found.items()
        }
        columns |= analysis.accuracies()
        writer.writerow([recorded.step_name, *columns])
        for step in range(recorded.path.shape[1]):
            writer.writerow([step, *(f"{curve[step]:.6g}" for curve in columns.values())])


SUSPECTS = "idx file given_label given_name suggested_label suggested_name score suspect reason mark".split()


@contextlib.contextmanager
def csv_file(path):
    """Yield a csv.writer; names of files that are no UTF-8 go through as they are."""
    with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as f:
        yield csv.writer(f, lineterminator="\n")


def draw(analysis, out, step_distances, label_distances):
    """Every picture and animation."""
    recorded, scene, groups = analysis.recorded, analysis.scene, analysis.groups()
    name, wrong = recorded.name, recorded.wrong
    wrong_name = "given label wrong"
    if wrong is None:
        wrong, wrong_name = np.isin(np.arange(len(recorded.given)), analysis.order[: analysis.num_suspects]), "suspect"
    pictures.simplex_paths(scene, groups, out / "simplex.png", f"{name}: learning paths in the simplex")
    pictures.probabilities_over_time(scene, groups, out / "probabilities.png", f"{name}: probabilities over training")
    pictures.data_map(analysis.measures, wrong, out / "data_map.png", f"{name}: data map", wrong_name)
    pictures.measures_against_each_other(
        analysis.measures, wrong, out / "measures.png", f"{name}: measures", wrong_name
    )
    reference_name, reference = recorded.reference
    title = f"{name}: distance to {reference_name}"
    steps = dict(step_name=recorded.step_name, reference_name=reference_name)
    pictures.distance_over_training(
        step_distances, out / "distance.png", title, **steps, label_distance=label_distances
    )
    difficulty_name, difficulty = analysis.difficulty
    animations.distance_against_difficulty(
        scene,
        out / "distance.gif",
        difficulty,
        reference,
        wrong,
        difficulty_name=difficulty_name,
        reference_name=reference_name,
        wrong_name=wrong_name,
    )
    if recorded.fine is not None:
        draw_fast_zigzag(analysis, out / "zigzag_fast.gif")
    top = analysis.order[: pictures.MOST_IMAGES]
    top = top[analysis.mark[top] != "right"]
    if recorded.images and len(top):
        names = recorded.class_names
        captions = [f"{names[recorded.given[i]]}\n→ {names[analysis.suggestion[i]]}" for i in top]
        pictures.sample_images(list(recorded.images(top)), captions, out / "suspects.png", f"{name}: top suspects")


def draw_fast_zigzag(analysis, out):
    """Four samples update by update."""
    recorded = analysis.recorded
    path, rows, step_size = recorded.fine
    groups = analysis.groups(among=rows)
    truth = {"clean": recorded.clean, "true_probs": recorded.true_probs}
    scene = Scene(
        path,
        recorded.given[rows],
        recorded.class_names,
        **{key: None if values is None else values[rows] for key, values in truth.items()},
        idx=rows,
        step_name="update",  # the filter's default factor: the one asked for is made for epochs
        step_size=step_size,
    )
    four = [int(np.flatnonzero(rows == chosen[0])[0]) for chosen in groups.values()]
    animations.zigzag(scene, four, out, f"{recorded.name}: {', '.join(groups)}", 0.06)


def write_page(analysis, out):
    """report.html."""
    recorded = analysis.recorded
    write_report(
        out / "report.html",
        name=recorded.name,
        class_names=recorded.class_names,
        given=recorded.given,
        order=analysis.order,
        suggestion=analysis.suggestion,
        score=analysis.score,
        reasons=analysis.reasons,
        num_errors=analysis.num_errors,
        num_suspects=analysis.num_suspects,
        path=recorded.path,
        images=recorded.images,
        files=recorded.files,
        original=recorded.original,
        marks=recorded.marks,
    )
