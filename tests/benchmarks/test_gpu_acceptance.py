"""The acceptance script, tried on a CPU: its parts run, and their results are in the file as they come."""

import json

from benchmarks.gpu_acceptance import main


def test_the_acceptance_script_runs_its_parts_and_keeps_their_results(tmp_path):
    main(["--quick", "--device", "cpu", "--out", str(tmp_path), "--only", "runs", "equal"])
    results = json.loads((tmp_path / "results.json").read_text())
    assert [part for part in results["parts"] if not part["good"]] == []
    parts = {part["name"]: part for part in results["parts"]}
    assert len(parts["student_smallcnn_off"]["epochs"]) == 2 and results["hardware"]["device"] == "cpu"
    assert {"epoch_2.pt of two equal runs is equal", "epoch_2.pt of a run that was stopped is equal"} <= parts.keys()


def test_a_part_that_takes_too_long_is_ended_and_the_next_runs(tmp_path, monkeypatch):
    from benchmarks import gpu_acceptance

    slow = ["-c", "import time; print('begun', flush=True); time.sleep(600)"]
    parts = {"slow": lambda a: a.call("slow", 1, slow), "next": lambda a: a.call("next", 60, ["-c", "print(1)"])}
    monkeypatch.setattr(gpu_acceptance, "PARTS", parts)
    found = main(["--quick", "--device", "cpu", "--out", str(tmp_path)])["parts"]
    assert [(part["name"], part["good"]) for part in found] == [("slow", False), ("next", True)]
