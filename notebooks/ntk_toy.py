"""What the NTK notebook needs: a small network, plain SGD with its path, its linearised twin, steps that are really
taken, and the larger figures. All tensors of the toy part are float64 on the CPU, where small differences of nearly
equal numbers can be trusted.

model = network(width=2000, seed=0)
order = visiting_order(64, epochs=200, seed=0)
linearised = linearised_path(empirical_ntk(model, x, x), model(x).detach(), p_tar, order, lr=1e-4, every=64)
path, kept = train(model, x, p_tar, order, lr=1e-4, every=64, keep=[0, 640])
"""

import copy

import numpy as np
import torch
from matplotlib.lines import Line2D
from torch import nn
from toy_gaussian import over_seeds, posterior
from tqdm import tqdm

from common import plots
from paths import simplex
from paths.pictures import Scene

CLASSES = ["class 0", "class 1", "class 2"]
CLASS_COLORS, CLASS_MARKERS = ("#332288", "#CC6677", "#88CCEE"), "o^s"
OWN, OTHERS = plots.GIVEN, "#0072B2"  # what a sample does to itself; what the others do to it
HELPER, OPPONENT = "#0072B2", "#D55E00"


def network(width, seed, inputs=2, num_classes=3):
    """One hidden layer of ReLUs: its weights and biases ~ N(0, 1), those of the output of deviation 1/width."""
    model = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, num_classes)).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer, deviation in ((model[0], 1.0), (model[2], 1 / width)):
            for p in layer.parameters():
                p.copy_(deviation * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return model


def visiting_order(num_samples, epochs, seed):
    """The sample of each update, every epoch in an order of its own: a list of epochs * num_samples rows."""
    generator = torch.Generator().manual_seed(seed)
    return torch.cat([torch.randperm(num_samples, generator=generator) for _ in range(epochs)]).tolist()


@torch.no_grad()
def train(model, x, p_tar, order, lr, every, keep=(), label=None):
    """Plain SGD on cross-entropy, a sample an update, in place; returns (path, kept).

    path: (N, T, K) probabilities of all of x before every `every`-th update, and after the last one. kept: {update:
    a copy of the model before that update}. The gradient is written out: autograd would take five times as long.
    """
    W, b, V, c = model.parameters()
    # Made at once: a small tensor kept after each large one would hold the large one's memory, gigabytes in all
    path, kept = x.new_empty(len(x), -(-len(order) // every) + 1, len(c)), {}
    for update, u in enumerate(tqdm(order, desc=label, unit="update", mininterval=0.5, disable=label is None)):
        if update % every == 0:
            path[:, update // every] = model(x).softmax(1)
        if update in keep:
            kept[update] = copy.deepcopy(model)
        before = torch.addmv(b, W, x[u])
        h = before.relu()
        G = torch.addmv(c, V, h).softmax(0) - p_tar[u]
        back = (G @ V) * (before > 0)
        V.addr_(G, h, alpha=-lr)
        c.add_(G, alpha=-lr)
        W.addr_(back, x[u], alpha=-lr)
        b.add_(back, alpha=-lr)
    path[:, -1] = model(x).softmax(1)
    if len(order) in keep:
        kept[len(order)] = copy.deepcopy(model)
    return path, kept


def linearised_path(kernel, logits, p_tar, order, lr, every):
    """The path, as train() gives it, of f(x; w0) + J(x) (w - w0), the network linearised in its first weights w0.

    A step of SGD on x_u moves this network's logits by exactly -lr K(., x_u) G(x_u), with the K it began with, so
    the kernel (N, N, K, K) and the first logits (N, K) are all that is needed.
    """
    z, path = logits.clone(), []
    for update, u in enumerate(order):
        if update % every == 0:
            path.append(z.softmax(1))
        z -= lr * (kernel[:, u] @ (z[u].softmax(0) - p_tar[u]))
    path.append(z.softmax(1))
    return torch.stack(path, 1)


def step_taken(model, x_observed, x_updated, target, lr):
    """What one plain SGD step of a copy of the model really does to x_observed: (logits, probabilities), (O, K)."""
    stepped = copy.deepcopy(model)
    optimizer = torch.optim.SGD([p for p in stepped.parameters() if p.requires_grad], lr)
    nn.functional.cross_entropy(stepped(x_updated), target).backward()
    optimizer.step()
    with torch.no_grad():
        before, after = model(x_observed), stepped(x_observed)
    return after - before, after.softmax(1) - before.softmax(1)


def relative_error(predicted, actual):
    """|predicted - actual| / |actual|, over all samples together."""
    return float((predicted - actual).norm() / actual.norm())


class UpdatesKept:
    """An observer that keeps what some updates of a run found and left: kept[update] = {...}.

    "before", "after": copies of the model; "momentum": the optimiser's buffers before the update, None before the
    first; "idx": the batch; "lr".
    """

    def __init__(self, state, updates):
        self.state, self.updates, self.kept, self._open = state, set(updates), {}, None

    def before_update(self, update, model):
        self._close(model)
        if update in self.updates:
            optimizer = self.state.optimizer
            buffers = [optimizer.state[p].get("momentum_buffer") for p in model.parameters()]
            self.kept[update] = self._open = {
                "before": copy.deepcopy(model).eval(),
                "momentum": None if buffers[0] is None else [b.clone() for b in buffers],
                "lr": optimizer.param_groups[0]["lr"],
            }

    def after_forward(self, update, epoch, idx, logits):
        if self._open:
            self._open["idx"] = idx.clone()

    def after_epoch(self, epoch, model):
        self._close(model)

    def _close(self, model):
        if self._open:
            self._open["after"] = copy.deepcopy(model).eval()
            self._open = None


# ----------------------------------------------------------------------------------------------- figures


def scene(path, data):
    """The Scene of the toy data's paths (N, T, 3)."""
    return Scene(path.numpy(), data.y.numpy(), CLASSES, true_probs=data.p_star.numpy())


def draw_arrow(ax, start, change, color, **look):
    """An arrow from the point `start` (2,) of a figure by `change` (2,)."""
    style = dict(arrowstyle="-|>", color=color, lw=1.6, mutation_scale=9, shrinkA=0, shrinkB=0) | look
    ax.annotate("", start + change, start, arrowprops=style, zorder=9)


def draw_data_and_kernel(data, trace, numbered):
    """The samples over the certainty of p*, some of them numbered; trace (N, N) as a map, sorted by class."""
    fig, (left, right) = plots.figure(2, width=5.4, height=4.4)
    side = torch.linspace(-2.6, 2.6, 200)
    grid = torch.stack(torch.meshgrid(side, side, indexing="xy"), 2)
    sure = posterior(grid.flatten(0, 1), data.means, data.variance).max(1).values.reshape(200, 200)
    shade = left.contourf(side, side, sure, levels=np.linspace(1 / 3, 1, 9), cmap="Greys_r", alpha=0.5)
    fig.colorbar(shade, ax=left, label="largest p*(k | x)", format="%.2f")
    for k, (color, marker) in enumerate(zip(CLASS_COLORS, CLASS_MARKERS, strict=True)):
        look = dict(marker=marker, edgecolors="white", lw=0.5, label=f"label {k}")
        left.scatter(*data.x[data.y == k].T, 28, color, **look)
    for o in numbered:
        left.annotate(str(o), data.x[o].tolist(), (5, 4), "data", "offset points", fontsize=9, weight="bold")
    left.set(xlabel="first input", ylabel="second input", title="64 samples and p*", aspect="equal")
    left.legend(fontsize=9, loc="lower left")

    order = data.y.argsort(stable=True)
    shown = right.imshow(trace[order][:, order], cmap="viridis", vmin=0)
    right.grid(False)
    edges = data.y.bincount().cumsum(0).tolist()
    for edge in edges[:-1]:
        right.axhline(edge - 0.5, color="white", lw=1.2)
        right.axvline(edge - 0.5, color="white", lw=1.2)
    middles = [(a + b) / 2 - 0.5 for a, b in zip([0, *edges], edges, strict=False)]
    names = [f"label {k}" for k in range(len(edges))]
    right.set_xticks(middles, names)
    right.set_yticks(middles, names, rotation=90, va="center")
    right.set(xlabel="x_u, the sample learned", ylabel="x_o, the sample observed")
    right.set_title("trace of K(x_o, x_u) before training")
    fig.colorbar(shown, ax=right, label="trace of the 3 × 3 block")
    return fig


def draw_similarity(inner, trace, y, typical, rho, rho_all):
    """Trace of K against the inner product of inputs: for the typical samples, by class, and for all pairs."""
    fig, axes = plots.figure(4, width=3.5, height=3.5)
    for ax, o in zip(axes, typical, strict=False):
        for k, (color, marker) in enumerate(zip(CLASS_COLORS, CLASS_MARKERS, strict=True)):
            u = (y == k) & (torch.arange(len(y)) != o)
            look = dict(marker=marker, edgecolors="white", lw=0.4, label=f"label {k}")
            ax.scatter(inner[o][u], trace[o][u], 28, color, **look)
        ax.set_title(f"x_o = sample {o}, label {y[o]}\nrank correlation {rho[o]:.2f}", fontsize=11)
    pairs = np.triu_indices(len(y), 1)
    same = (y[:, None] == y[None])[pairs]
    for members, color, label in ((same, "#0072B2", "same label"), (~same, "#D55E00", "different labels")):
        axes[3].scatter(inner[pairs][members], trace[pairs][members], 7, color, lw=0, alpha=0.5, label=label)
    axes[3].set_title(f"all pairs\nrank correlation {rho_all:.2f}", fontsize=11)
    for ax, scale in ((axes[0], 1), (axes[3], 2)):
        ax.legend(fontsize=9, markerscale=scale)
    for ax in axes:
        ax.set_xlabel("inner product of the inputs")
    axes[0].set_ylabel("trace of K(x_o, x_u)")
    return fig


def draw_A(epochs, eigenvalues, traces):
    """Eigenvalues of A (N, T, 3), ascending, and its trace {group: (n, T)}, over training: by group, by sample."""
    fig, (left, right, single) = plots.figure(3, width=4.3, height=3.8)

    def band(ax, values, shares, color, name):
        low, middle, high = values.quantile(torch.tensor(shares, dtype=values.dtype), dim=0)
        ax.fill_between(epochs, low, high, color=color, alpha=0.2, lw=0)
        ax.plot(epochs, middle, color=color, label=name)

    for place, (name, color) in enumerate((("smallest", "#D55E00"), ("middle", "#56B4E9"), ("largest", "#0072B2"))):
        band(left, eigenvalues[:, :, place], (0, 0.5, 1), color, name)
    for (name, values), color in zip(traces.items(), ("#D55E00", "#E69F00", "#009E73"), strict=True):
        band(right, values, (0.25, 0.5, 0.75), color, name)
        single.plot(epochs, values.T, color=color, lw=0.6, alpha=0.6)
    left.set(ylabel="eigenvalue of A(x_o)", ylim=(-0.03, 0.63))
    left.set_title("eigenvalues: median and full range", fontsize=11)
    left.legend(fontsize=9, ncols=3, loc="upper center", columnspacing=1, handlelength=1.5)
    right.set(ylabel="trace of A(x_o) = 1 − |q|²", ylim=(-0.03, 0.73))
    right.set_title("trace: median and quartiles", fontsize=11)
    right.legend(title="by base difficulty", fontsize=9)
    single.set(ylim=(-0.03, 0.73))
    single.set_title("trace: each sample", fontsize=11)
    for ax in (left, right, single):
        ax.set_xscale("symlog", linthresh=1)
        ax.set(xlabel="epoch", xlim=(0, epochs[-1]))
    return fig


def draw_twins(runs, data, samples):
    """Real and linearised paths of some samples, {width: (real, linearised)} (N, T, 3), a row a width."""
    fig, axes = plots.figure(len(samples), len(runs), width=3.1, height=2.9)
    real_line = dict(color="#56B4E9", lw=4, solid_capstyle="round", zorder=2)
    linear_line = dict(color="black", lw=1.2, ls=(0, (4, 2)), zorder=3)
    for row, (width, (real, linear)) in zip(axes, runs.items(), strict=True):
        for ax, o in zip(row, samples, strict=True):
            sample = scene(real, data).sample(o)
            simplex.draw_simplex(ax, sample)
            ax.plot(*sample.points(real[o].numpy()).T, **real_line)
            ax.plot(*sample.points(linear[o].numpy()).T, **linear_line)
            for t, mark in ((0, "start"), (-1, "end")):
                ax.plot(*sample.points(real[o, t].numpy()), **simplex.MARKS[mark])
        style = dict(rotation=90, ha="center", va="center", weight="bold")
        row[0].annotate(f"width {width}", (0, 0.5), (-4, 0), "axes fraction", "offset points", **style)
    names = {"given": "given label", "truth": "p*", "start": "untrained", "end": "end of the real path"}
    handles = [Line2D([], [], label="real network", **real_line)]
    handles += [Line2D([], [], label="linearised network", **linear_line)]
    handles += [Line2D([], [], label=name, **simplex.MARKS[mark]) for mark, name in names.items()]
    fig.legend(handles=handles, loc="outside lower center", ncols=6, fontsize=9)
    return fig


def draw_fit(runs, y):
    """Training accuracy and cross-entropy of real and linearised networks, {width: (real, linearised)} (N, T, 3)."""
    fig, axes = plots.figure(2, width=5.4, height=3.6)
    for (width, pair), color in zip(runs.items(), ("#0072B2", "#D55E00"), strict=False):
        for path, name in zip(pair, ("real", "linearised"), strict=True):
            real = name == "real"
            look = dict(color=color, lw=4, alpha=0.45) if real else dict(color=color, lw=1.4, ls=(0, (4, 2)))
            q_label = path[torch.arange(len(y)), :, y]  # (N, T)
            right = (path.argmax(2) == y[:, None]).double()
            for ax, curve in zip(axes, (right.mean(0), -q_label.log().mean(0)), strict=True):
                ax.plot(curve, label=f"{name}, width {width}", **look)
    for ax, name in zip(axes, ("accuracy on the training labels", "cross-entropy on the training labels"), strict=True):
        ax.set_xscale("symlog", linthresh=1)
        ax.set(xlabel="epoch", ylabel=name, xlim=(0, path.shape[1] - 1))
    axes[1].legend(fontsize=9)
    return fig


def draw_epochs(found, names):
    """A sample's margin before each update of an epoch, with and without its own visit, a row of axes a sample.

    found: {sample: {epoch: (margin (T + 1,), margin without its visit (T + 1,), visit)}}. names: {sample: text}, what
    the margin is.
    """
    columns = len(next(iter(found.values())))
    fig, axes = plots.figure(columns, len(found), width=5.4, height=3.1, sharex=True, sharey="row", squeeze=False)
    for line, (o, epochs) in zip(axes, found.items(), strict=True):
        for ax, (epoch, (margin, without, visit)) in zip(line, epochs.items(), strict=True):
            ax.plot(without, "--", color=OTHERS, lw=1.6, label="its own visit left out")
            ax.plot(margin, color="#555555", lw=1.8, label="all 64 visits")
            ax.plot([visit, visit + 1], margin[visit : visit + 2], "o-", color=OWN, ms=5, lw=2.6, label="its own visit")
            ax.set_title(f"sample {o}, epoch {epoch}", fontsize=11)
        line[0].set_ylabel(names[o])
    for ax in axes[-1]:
        ax.set_xlabel("update of the epoch")
    axes[0, 0].legend(fontsize=9)
    return fig


def draw_pulls(data, path, pulls):
    """Own pull against the others', a row of two axes for each sample.

    path: (N, T, 3), before every update. pulls: {sample: {"real": (own, others), "predicted": (own, others), "turn":
    epoch, "rival": class}}, own and others (epochs, 3).
    """
    fig, axes = plots.figure(2, len(pulls), width=5.2, height=3.7)
    for (ax, side), (o, found) in zip(axes, pulls.items(), strict=True):
        epochs = len(found["real"][0])
        sample = scene(path[:, ::8], data).sample(o)
        simplex.draw_simplex(ax, sample)
        ax.plot(*sample.points(path[o].numpy()).T, color="#BBBBBB", lw=1)
        for epoch in np.unique(np.geomspace(1, epochs, 7).round().astype(int)) - 1:
            q = path[o, epoch * ((path.shape[1] - 1) // epochs)]
            start = sample.points(q.numpy())
            arrows = [sample.points((q + part[epoch]).numpy()) - start for part in found["predicted"]]
            enlarged = 0.2 / max(np.linalg.norm(arrow) for arrow in arrows)
            for arrow, color in zip(arrows, (OWN, OTHERS), strict=True):
                draw_arrow(ax, start, enlarged * arrow, color)
            ax.plot(*start, "o", color="white", mec="black", ms=3.5, zorder=10)

        edges = np.unique(np.geomspace(1, epochs + 1, 14).round().astype(int))  # of ever longer stretches of epochs
        middles = np.sqrt(edges[:-1] * (edges[1:] - 1))
        for kind, look in (("real", dict(lw=2)), ("predicted", dict(ls="none", marker="o", ms=4))):
            names = ("by itself, towards its label", "by the others, away from it")
            for part, sign, color, name in zip(found[kind], (1, -1), (OWN, OTHERS), names, strict=True):
                pull = sign * (part[:, data.y[o]] - part[:, found["rival"]]).numpy()
                means = [pull[a - 1 : b - 1].mean() for a, b in zip(edges, edges[1:], strict=False)]
                side.plot(middles, means, color=color, label=name if kind == "real" else None, **look)
        side.axvline(found["turn"], color="#666666", ls=":")
        place = dict(transform=side.get_xaxis_transform(), color="#666666", fontsize=9)
        side.text(found["turn"] * 1.08, 0.03, "the path turns", **place)
        side.set(xlabel="epoch", ylabel="change per epoch", xscale="log", ylim=(0, None))
        side.set_title(f"sample {o}: who pulls how hard (line: real, dots: predicted)", fontsize=11)
        side.legend(fontsize=9, loc="upper right")
    return fig


def draw_addition(data, q, steps, enlarged):
    """Vector addition at batch size 2. q: (N, 3). steps: [(o, batch of two, parts (2, 3), real step (3,))]."""
    fig, axes = plots.figure(len(steps), width=4.1, height=4.1)
    for ax, (o, batch, parts, real) in zip(axes, steps, strict=True):
        sample = scene(q[:, None], data).sample(o)
        simplex.draw_simplex(ax, sample)
        start = sample.points(q[o].numpy())
        first, second, step = (enlarged * (sample.points((q[o] + d).numpy()) - start) for d in (*parts, real))
        for tail in (first, second):
            ax.plot(*np.stack([start + tail, start + first + second]).T, color="#999999", ls=":", lw=1.2, zorder=3)
        for arrow, color, width in ((first, "#0072B2", 2), (second, "#E69F00", 2), (step, "black", 2.6)):
            draw_arrow(ax, start, arrow, color, lw=width, mutation_scale=12)
        ax.plot(*start, "o", color="white", mec="black", ms=5, zorder=10)
        labels = ", ".join(f"{u} (label {data.y[u]})" for u in batch)
        error = relative_error(parts.sum(0), real)
        ax.set_title(f"sample {o}; batch: {labels}\nerror of the sum {error:.1%}", fontsize=10)
    entries = {"first sample's part": "#0072B2", "second sample's part": "#E69F00", "real step with both": "black"}
    handles = [Line2D([], [], color=color, lw=2.4, label=name) for name, color in entries.items()]
    handles += [Line2D([], [], color="#999999", ls=":", label="the sum of the parts")]
    marks = (("truth", "p*"), ("given", "given label"))
    handles += [Line2D([], [], label=name, **simplex.MARKS[mark]) for mark, name in marks]
    fig.legend(handles=handles, loc="outside lower center", ncols=6, fontsize=9)
    return fig


def draw_turn(paths, picked, row, raw, filtered, turn, per_epoch):
    """A sample's path in the simplex and over time, its turn marked. paths: the Scene; raw, filtered: (T, K)."""
    fig, (left, right) = plots.figure(2, width=5.4, height=4.2)
    sample = paths.sample(picked)
    simplex.draw_simplex(left, sample)
    simplex.Trail(left, sample).show(1)
    star = dict(marker="*", color="#D55E00", mec="black", ms=15, ls="none", zorder=10)
    left.plot(*sample.points(filtered[turn]), **star)
    true, given = int(paths.clean[picked]), int(paths.given[picked])
    time = np.arange(len(raw)) / per_epoch
    for k, name, color in ((true, "true class", plots.TRUTH), (given, "given label", plots.GIVEN)):
        right.plot(time, raw[:, k], color=color, lw=0.6, alpha=0.6)
        right.plot(time, filtered[:, k], color=color, lw=2.4, label=f"{name}, {paths.class_names[k]}")
    right.axvline(turn / per_epoch, color="#D55E00", lw=1.4)
    right.plot(turn / per_epoch, filtered[turn, true], label="the turn", **star)
    right.set(xlabel="epoch", ylabel="probability (thin: raw, thick: filtered)", ylim=(0, 1.02))
    right.set_title(f"training sample {row} over training")
    right.legend(fontsize=9)
    simplex.path_legend(fig, paths)
    return fig


def draw_helpers(recorded, observed, q_true, idx, pull, most=6):
    """The strongest helpers and opponents of a batch, as images. pull: (U,), of the samples idx (U,)."""
    ranked, names = np.argsort(-pull), recorded.class_names
    fig, axes = plots.figure(most + 1, 2, width=1.75, height=2.1)

    def draw(ax, row, color, amount):
        given, clean = recorded.given[row], recorded.clean[row]
        ax.imshow(np.squeeze(recorded.images([row])[0]), cmap="gray", vmin=0, vmax=255)
        truth = "" if given == clean else f" (true {names[clean]})"
        note = ("observed" if color == "black" else "itself") + "\n" if row == observed else ""
        ax.set_title(f"{note}label {names[given]}{truth}\n{amount}", fontsize=9.5, color=color)

    for ax in axes.flat:
        ax.axis("off")
    draw(axes[0, 0], observed, "black", f"q(true) = {q_true:.2f}")
    lines = (("helpers", ranked[:most], HELPER), ("opponents", ranked[::-1][:most], OPPONENT))
    for line, (name, places, color) in zip(axes, lines, strict=True):
        for ax, u in zip(line[1:], places, strict=True):
            draw(ax, int(idx[u]), color, f"pull {1000 * pull[u]:+.2f}")
        style = dict(rotation=90, ha="center", va="center", weight="bold", color=color)
        line[1].annotate(name, (-0.12, 0.5), xycoords="axes fraction", **style)
    fig.suptitle(
        f"Who moved q(true class) of the observed sample: pull in thousandths, batch of {len(idx)}", fontsize=11
    )
    return fig


def draw_groups(pulls, labels, shares, title):
    """Mean pulls {(label of u, digit of u): values} with 95 % intervals, and {part: share of the step} as boxes."""
    fig, (left, right) = plots.figure(2, width=5.9, height=4, width_ratios=(1.5, 1))
    looks = {
        "all": ("all such samples", "#555555", "o"),
        "same digit": ("images of the same digit", "#0072B2", "D"),
        "other digits": ("images of other digits", "#E69F00", "s"),
    }
    for place, (digit, (name, color, marker)) in enumerate(looks.items()):
        there = [(k, pulls[label, digit]) for k, label in enumerate(labels) if len(pulls.get((label, digit), ())) > 2]
        mean, low, high = np.array([over_seeds(values) for _, values in there]).reshape(-1, 3).T
        at = [k + 0.2 * (place - 1) for k, _ in there]
        look = dict(fmt=marker, color=color, capsize=4, ms=7, lw=2, label=name)
        left.errorbar(at, mean, [mean - low, high - mean], **look)
    left.axhline(0, color="#999999", lw=0.8)
    left.set_xticks(range(len(labels)), labels)
    left.set_xlabel("given label of x_u")
    left.set_ylabel("mean pull of one x_u on q(true class)\n(thousandths)")
    left.set_title(title, fontsize=11)
    left.legend(fontsize=9)
    right.boxplot(
        list(shares.values()), orientation="horizontal", showfliers=False, medianprops=dict(color="#D55E00", lw=2)
    )
    right.set_yticks(range(1, len(shares) + 1), list(shares))
    right.invert_yaxis()
    right.set(xlabel="length of the part / length of the actual step", xlim=(0, None))
    right.set_title("what a step is made of", fontsize=11)
    return fig
