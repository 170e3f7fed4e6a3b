"""The analysis of a recorded path as files: measures, suspects, distances, pictures, the page.

samples.csv, suspects.csv, steps.csv, summary.txt, PNGs, GIFs and report.html, all in one folder.
"""

import contextlib
import csv

import numpy as np

from common.untrusted import as_cell
from paths import animations, audit, measures, pictures
from paths.label_errors import reasons, told
from paths.pictures import Scene

DISAGREED = 1000  # images on which people disagree most, where their distributions are known
RANKS = {"easy": 0.61, "medium": 0.17, "hard": 0.02}  # from the hardest on: the paper's 3050, 850, 100 of 5000
EACH = 3  # samples of a group that are drawn


class Analysis:
    """What can be said of a Recorded path: its measures, its suspects, most suspicious first, the person's audit.

    ranked: idx of the visited samples by score. order: the same, those that a person marked right after all others.
    guess: (low, best, high) number of wrong labels; the best guess many are suspects: the first num_suspects of the
    order, that many less those marked right. audit: (N,) text, the stratum that a sample was drawn for, or empty.
    estimate: audit.Estimate from the marks, or None where they say nothing of this ranking.
    """

    def __init__(self, recorded, smoothing: float | None = None, num_cards: int = 0):
        self.recorded, self.smoothing = recorded, smoothing
        path, given = recorded.path, recorded.given
        self.measures = measures.compute(path, given, recorded.true_probs, smoothing)
        found = told(path, given)
        self.score, self.suggestion, self.p, self.guess = found.score, found.suggestion, found.p, found.guess
        visited = np.flatnonzero(np.isfinite(self.score))
        self.ranked = visited[np.argsort(-self.score[visited], kind="stable")]
        self.mark = np.full(len(given), "") if recorded.marks is None else recorded.marks.mark
        is_right = self.mark[self.ranked] == "right"
        self.order = np.concatenate([self.ranked[~is_right], self.ranked[is_right]])
        self.num_suspects = int((~is_right[: self.num_errors]).sum())
        self._take_audit(num_cards)
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
    def num_errors(self) -> int:
        """The best guess."""
        return self.guess[1]

    def _take_audit(self, num_cards):
        """The cards to draw, those that were drawn for the marks, and what these say."""
        ranked, marks = self.ranked, self.recorded.marks
        stratum = audit.strata(len(ranked)).astype("U1")
        earlier = np.full(len(ranked), "") if marks is None else marks.audit[ranked]
        self.other_audit = bool(((earlier != "") & (earlier != stratum)).any())  # drawn from another ranking
        drawn = (earlier != "") & (not self.other_audit)
        self.estimate = None
        if drawn.any():
            said = np.select([self.mark[ranked] == "wrong", self.mark[ranked] == "right"], [1.0, 0.0], np.nan)
            if not np.isnan(said[drawn]).all():
                self.estimate = audit.estimate(said, np.flatnonzero(drawn))
        to_draw = audit.draw(len(ranked), num_cards)
        places = audit.mixed(len(ranked), [*to_draw, *np.setdiff1d(np.flatnonzero(drawn), to_draw)])
        drawn[to_draw] = True
        self.audit = np.full(len(self.score), "", "U1")
        self.audit[ranked[drawn]] = stratum[drawn]
        self.cards = ranked[places]  # in the order of the page

    @property
    def difficulty(self):
        """(name, (N,)), larger is harder: |e_y - p*| where p* is known, else 1 - the label's mean probability."""
        if "base_difficulty" in self.measures:
            return "base difficulty |e_y - p*|", self.measures["base_difficulty"]
        return "1 - mean probability of the given label", 1 - self.measures["confidence"]

    def wrong_and_right(self, among=None):
        """(idx of mislabelled samples or, where nobody knows, of suspects, in the order; of all others, hardest first).

        among: (M,) idx to choose from (all).
        """
        chosen = self.order if among is None else self.order[np.isin(self.order, among)]
        wrong = self.recorded.wrong
        is_wrong = np.isin(chosen, self.order[: self.num_suspects]) if wrong is None else wrong[chosen]
        right = chosen[~is_wrong]
        return chosen[is_wrong], right[np.argsort(-self.difficulty[1][right], kind="stable")]

    def groups(self, among=None):
        """{title: idx}: easy, medium and hard samples, and mislabelled ones or, where nobody knows, top suspects.

        among: (M,) idx to choose from (all). Mislabelled ones are of evenly spaced scores, so that ones that
        the ranking misses are shown, too.
        """
        wrong, right = self.wrong_and_right(among)
        starts = {name: min(int(rank * len(right)), max(len(right) - EACH, 0)) for name, rank in RANKS.items()}
        found = {name: right[start : start + EACH].tolist() for name, start in starts.items()}
        if self.recorded.wrong is None:
            found["top suspects"] = wrong[:EACH].tolist()
        else:
            places = np.linspace(0, max(len(wrong) - 1, 0), EACH + 2).round().astype(int)[1:-1]
            found["mislabelled"] = wrong[np.unique(places)].tolist() if len(wrong) else []
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

    def summary(self) -> str:
        """What can be said of how many labels are wrong, and of the ranking; a few lines."""
        recorded, n = self.recorded, len(self.order)
        lines = [f"{recorded.name}: {n:,} samples, {recorded.path.shape[1]} {recorded.step_name}s; {self.guessed()}"]
        if recorded.clean is not None:
            wrong, top = recorded.wrong, self.order[: self.num_suspects]
            right = (self.suggestion == recorded.clean)[self.order][wrong[self.order]]
            lines.append(
                f"wrong labels, known here: {wrong[self.order].sum():,}; of the {len(top):,} suspects "
                f"{wrong[top].mean() if len(top) else 0:.1%} are wrong; of the wrong ones "
                f"{right.mean() if len(right) else 0:.1%} have the right suggestion"
            )
        if kept := int((self.mark[self.order] == "right").sum()):
            lines.append(f"{self.num_suspects:,} suspects are left; {kept:,} samples are marked right")
        return "\n".join([*lines, *self.measured()])

    def guessed(self) -> str:
        """The guess in words that cannot be taken for a count."""
        low, _, high = self.guess
        text = f"wrong labels, estimated from the path alone: {low:,} to {high:,}; look at the samples to know"
        if self.recorded.path.shape[1] == 1:
            text += " (ranked by the margin of one prediction, which is weaker than a learning path)"
        return text

    def measured(self) -> list[str]:
        """What the audit says, in lines; none where nobody looked."""
        if self.other_audit:
            return ["the audit of these marks was drawn for another ranking, and says nothing of this one"]
        if (found := self.estimate) is None:
            if (self.mark == "").all() or (self.audit == "").all():
                return []
            return ["no sample of the audit is marked; mark them (show: audit) to measure how many labels are wrong"]
        looked = f"audit, {found.looked:,} of {found.of:,} cards looked at"
        lines = [f"{looked}: {_range(found.wrong)} of {len(self.ranked):,} labels are wrong (95 % interval)"]
        if 0 < found.depth < len(self.ranked):
            lines.append(
                f"the {found.depth:,} most suspicious were all looked at; below them {_range(found.left)} are left"
            )
        return lines


def _range(interval):
    low, best, high = interval
    return f"{round(low):,} to {round(high):,}" + ("" if np.isnan(best) else f" (best {round(best):,})")


def most_disputed(true_probs, among):
    """(N,) bool: of the samples `among` (N,) bool the 1,000 whose distribution of labels has the largest entropy."""
    entropy = -(true_probs * measures.log(true_probs, measures.smallest(true_probs))).sum(1)
    most = np.argsort(-np.where(among, entropy, -1), kind="stable")[:DISAGREED]
    return np.isin(np.arange(len(among)), most) & among


def write_tables(analysis, out, step_distances):
    """samples.csv, suspects.csv, and steps.csv: distances to the reference, of all samples and of some, accuracies.

    The columns of samples.csv are those of paths.measures, which says which are larger for easier samples.
    """
    recorded, visited = analysis.recorded, np.sort(analysis.order)
    with csv_file(out / "samples.csv") as writer:
        known = {} if recorded.clean is None else {"clean_label": recorded.clean}
        writer.writerow(["idx", "given_label", *known, *analysis.measures])
        columns = [visited, recorded.given[visited], *(values[visited] for values in known.values())]
        columns += [[f"{v:.6g}" for v in values[visited]] for values in analysis.measures.values()]
        writer.writerows(zip(*columns, strict=True))
    with csv_file(out / "suspects.csv") as writer:
        found = list(suspects(analysis))
        writer.writerow(found[0])
        writer.writerows(row.values() for row in found)
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
    if analysis.estimate:
        with csv_file(out / "audit.csv") as writer:
            figures = [f"{what}{end}" for what in ("precision", "recall") for end in ("_low", "", "_high")]
            writer.writerow(["depth", *figures])
            for row in analysis.estimate.by_depth:
                figures = (*row["precision"], *row["recall"])
                writer.writerow([row["depth"], *("" if np.isnan(v) else f"{v:.4f}" for v in figures)])


def suspects(analysis):
    """The rows of suspects.csv."""
    recorded, names = analysis.recorded, analysis.recorded.class_names
    for place, i in enumerate(analysis.order):
        given, suggested = recorded.given[i], analysis.suggestion[i]
        yield {
            "idx": i,
            "file": as_cell(recorded.files[i]) if recorded.files else "",
            "given_label": given,
            "given_name": as_cell(names[given]),
            "suggested_label": suggested,
            "suggested_name": as_cell(names[suggested]),
            "probability": f"{analysis.p[i]:.3g}",
            "score": f"{analysis.score[i]:.6g}",
            "suspect": int(place < analysis.num_suspects),
            "reason": as_cell(analysis.reasons[i]),
            "mark": analysis.mark[i],
        }


@contextlib.contextmanager
def csv_file(path):
    """Yield a csv.writer; names of files that are no UTF-8 go through as they are."""
    with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as f:
        yield csv.writer(f, lineterminator="\n")


def draw(analysis, out, step_distances, label_distances):
    """Every picture and animation."""
    recorded, scene, groups, name = analysis.recorded, analysis.scene, analysis.groups(), analysis.recorded.name
    whose = {"wrong": recorded.wrong, "wrong_name": "given label wrong"}
    if recorded.wrong is None:
        is_suspect = np.isin(np.arange(len(recorded.given)), analysis.wrong_and_right()[0])
        whose = {"wrong": is_suspect, "wrong_name": "suspect"}
    pictures.simplex_paths(scene, groups, out / "simplex.png", f"{name}: learning paths in the simplex")
    pictures.probabilities_over_time(scene, groups, out / "probabilities.png", f"{name}: probabilities over training")
    pictures.data_map(analysis.measures, out=out / "data_map.png", title=f"{name}: data map", **whose)
    pictures.measures_against_each_other(
        analysis.measures, out=out / "measures.png", title=f"{name}: measures", **whose
    )
    reference_name, reference = recorded.reference
    title = f"{name}: distance to {reference_name}"
    steps = dict(step_name=recorded.step_name, reference_name=reference_name)
    pictures.distance_over_training(
        step_distances, out / "distance.png", title, **steps, label_distance=label_distances
    )
    difficulty_name, difficulty = analysis.difficulty
    names = {"difficulty_name": difficulty_name, "reference_name": reference_name}
    animations.distance_against_difficulty(scene, out / "distance.gif", difficulty, reference, **names, **whose)
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
