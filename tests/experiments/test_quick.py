"""make evidence-quick: each grid runs, in miniature, to the tables of its claim."""

import comparison.results
import runs.run_folder
from experiments import quick, tables


def test_every_claims_grid_runs_to_its_tables(monkeypatch, capsys):
    for module, drawn in ((runs.run_folder, "plot_curves"), (comparison.results, "plot_comparison")):
        monkeypatch.setattr(module, drawn, lambda *what: None)  # most of the time of runs as small as these
    found = quick.main()
    assert found.keys() == {file.stem for file in tables.HERE.glob("*.toml")}
    recorded = {"cifar10_paths", "cifar10_smallcnn", "own_method_cifar10", "tiny_imagenet"}  # whose rows no grid makes
    assert tables.CLAIMS.keys() - found.keys() == {"memory_distance", "cifar10_smallcnn_human", *recorded}
    assert {row["method"] for row in found["later_methods"]} >= {"OHT", "FilterKD", "SELC", "ELR", "KD-SE"}
    assert len(tables.series(found["digits_paths"][0], "true_raw")) == 3
