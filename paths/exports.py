"""An analysis in the formats that other tools read: cleanlab, dataset cartography, Renumics Spotlight."""

import json

import numpy as np

from paths.analysis import csv_file, suspects
from paths.measures import chunks, log, smallest


def export_cleanlab(analysis, out):
    """labels.npy (n,), pred_probs.npy (n, K), the mean path, and idx.npy (n,), for cleanlab's find_label_issues."""
    recorded, rows = analysis.recorded, np.sort(analysis.order)
    mean = np.concatenate([q.mean(1, dtype=np.float64).T for _, q in chunks(recorded.path)])[rows]
    np.save(out / "labels.npy", recorded.given[rows])
    np.save(out / "pred_probs.npy", mean / mean.sum(1, keepdims=True))
    np.save(out / "idx.npy", rows)


def export_cartography(analysis, out):
    """training_dynamics/dynamics_epoch_E.jsonl (guid, logits, gold), which allenai/cartography reads."""
    recorded, rows = analysis.recorded, np.sort(analysis.order)
    folder = out / "training_dynamics"
    folder.mkdir()
    for step in range(recorded.path.shape[1]):
        q = np.asarray(recorded.path[:, step], np.float32)[rows]
        logits = log(q, smallest(recorded.path)).round(4).tolist()
        with open(folder / f"dynamics_epoch_{step}.jsonl", "w", encoding="utf-8") as f:
            for i, row in zip(rows.tolist(), logits, strict=True):
                f.write(json.dumps({"guid": i, f"logits_epoch_{step}": row, "gold": int(recorded.given[i])}) + "\n")


def export_spotlight(analysis, out):
    """spotlight.csv, one row a sample, all that is known of it in columns, for spotlight.show(pandas.read_csv(...)).

    image: the file, relative to the folder that has train/ in it (that of --images where there is no run).
    """
    kept = ("idx", "file", "given_name", "suggested_name", "score", "suspect", "reason")
    with csv_file(out / "spotlight.csv") as writer:
        writer.writerow(["idx", "image", "given", "suggested", "score", "suspect", "reason", *analysis.measures])
        for row in suspects(analysis):
            values = [f"{values[row['idx']]:.6g}" for values in analysis.measures.values()]
            writer.writerow([*(row[name] for name in kept), *values])


EXPORTS = {"cleanlab": export_cleanlab, "cartography": export_cartography, "spotlight": export_spotlight}
