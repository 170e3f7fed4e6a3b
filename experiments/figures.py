"""Draw the figures of RESULTS.md, in docs/results, from the rows in experiments/raw: python -m experiments.figures"""

import numpy as np

from common.plots import FILTERED, GIVEN, RAW, figure, save
from experiments.tables import HERE, RESULTS, TABLE, conditions, means, points, read_rows, series

FOLDER = RESULTS.parent / "docs" / "results"


def draw_condition(rows, path):
    fig, axes = figure(2, 1, sharey=True)
    for axis, moment in zip(axes, ("last", "best"), strict=True):
        for augment, color in (("none", "#D55E00"), ("crop", "#0072B2")):
            for norm, marker in (("batch", "o"), ("group", "^")):
                of = [p for p in points(rows) if p["augment"] == augment and p["norm"] == norm]
                xy = [[p["fitted"] for p in of], [p[f"{TABLE} {moment}"] for p in of]]
                axis.scatter(*xy, c=color, marker=marker, alpha=0.8, label=f"augment {augment}, {norm} norm")
        axis.axhline(0, color="black", lw=0.8)
        axis.set(
            xlabel="share of wrong labels that OHT fitted", title=moment.replace("best", "best-validation") + " epoch"
        )
    axes[0].set_ylabel("test accuracy, FilterKD - OHT")
    axes[0].legend(fontsize=8)
    save(fig, path)


def draw_memory(rows, path):
    found = means(rows, "test_acc_last", "method", "epochs")
    epochs = sorted({row["epochs"] for row in rows}, key=int)
    students = list(dict.fromkeys(row["method"] for row in rows))
    grid = np.array([[found.get((s, e), np.nan) for e in epochs] for s in students])
    fig, axis = figure(1, 1, width=5.6, height=5)
    axis.imshow(grid, cmap="cividis", aspect="auto")
    axis.set(xticks=range(len(epochs)), xticklabels=epochs, yticks=range(len(students)), yticklabels=students)
    axis.set(xlabel="epochs", title="test accuracy of the student, last epoch")
    axis.grid(False)
    middle = np.nanmean(grid)
    for (i, j), value in np.ndenumerate(grid):
        axis.text(j, i, f"{value:.3f}", ha="center", va="center", color="black" if value > middle else "white")
    save(fig, path)


def draw_paths(rows, path):
    groups = conditions([row for row in rows if row["method"] == "OHT"])
    fig, axes = figure(len(groups), 1, sharey=True, squeeze=False)
    lines = {
        "true_raw": ("prediction at the true class", RAW),
        "true_table": ("table (.05) at the true class", FILTERED),
        "true_mean": ("mean path at the true class", "#009E73"),
        "fitted_wrong": ("prediction at the wrong label", GIVEN),
    }
    for axis, (name, of) in zip(axes[0], groups.items(), strict=True):
        for column, (label, color) in lines.items():
            values = np.array([series(row, column) for row in of])
            axis.plot(values.mean(0), color=color, label=label)
            axis.fill_between(range(values.shape[1]), values.min(0), values.max(0), color=color, alpha=0.2, lw=0)
        axis.set(xlabel="epoch", title=name)
    axes[0, 0].set_ylabel("share of mislabelled samples")
    axes[0, 0].legend(fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    save(fig, path)


DRAWN = {"condition": draw_condition, "memory": draw_memory, "digits_paths": draw_paths}

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, draw in DRAWN.items():
        if (HERE / "raw" / f"{name}.csv").is_file():
            draw(read_rows(name), FOLDER / f"{name}.png")
    print(FOLDER)
