"""The README and docs: code for other people's training loops runs, links and files exist, flags are the scripts'."""

import importlib
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import analyze_paths
from paths.recorder import PathRecorder
from supervision.table import PredictionTable

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "benchmarks/README.md",
    *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")),
]


def anchors(page):
    """The places in a page that a link may name, as GitHub makes them from headings."""
    headings = re.findall(r"^#+ (.*)", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", (ROOT / name).read_text(encoding="utf-8")):
        file, _, anchor = link.partition("#")
        target = (ROOT / name).parent / file if file else ROOT / name
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def commands(name):
    """(script, its words) for each command line in a page's sh blocks."""
    text = (ROOT / name).read_text(encoding="utf-8")
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == [".venv/bin/python"] and words[1].endswith(".py") and "$" not in line:
                yield words[1], words[2:]


@pytest.mark.parametrize("name", PAGES)
def test_commands_have_flags_that_their_scripts_know(name):
    for script, words in commands(name):
        assert (ROOT / script).is_file()
        module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
        if hasattr(module, "make_parser"):
            module.make_parser().parse_args(words)


def test_the_readme_stays_short():
    assert len(README.encode()) <= 12_288


def plain_loop():
    """What anybody's script has: a model, an optimiser, and a loader that yields (x, y, idx)."""
    torch.manual_seed(0)
    digits = load_digits()
    x, y = torch.from_numpy(digits.data).float()[:200] / 16, torch.from_numpy(digits.target)[:200]
    model = torch.nn.Linear(64, 10)
    data = torch.utils.data.TensorDataset(x, y, torch.arange(200))
    loader = torch.utils.data.DataLoader(data, batch_size=32, shuffle=True)
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    return dict(model=model, loader=loader, optimizer=optimizer, num_samples=200, num_classes=10, num_epochs=4), y


def test_the_five_lines_record_the_paths_and_the_table_of_a_plain_loop(workplace):
    code = re.search(r"## In your own training loop\n.*?```python\n(.*?)```", README, re.DOTALL)[1]
    assert code.count("# added") == 5
    names, labels = plain_loop()
    seen = []
    names["model"].register_forward_hook(lambda model, x, logits: seen.append(logits.detach().softmax(1)))
    exec(code, names)
    path = np.load("path.npy")
    assert path.shape == (200, 4, 10)
    np.testing.assert_allclose(path.sum(2), 1, atol=2e-3)
    np.testing.assert_allclose(
        np.sort(path.reshape(-1, 10)[:, 0]), np.sort(torch.cat(seen)[:, 0].numpy().astype(np.float16)), atol=1e-3
    )
    average = path[:, 0].astype(np.float32)
    for step in range(1, 4):
        average = 0.95 * average + 0.05 * path[:, step]
    np.testing.assert_allclose(names["table"].values, average, atol=2e-3)

    student = torch.nn.Linear(64, 10)
    line = re.search(r"```python\n(loss = F.cross_entropy\(student.*\n)```", README)[1]
    x, _, idx = next(iter(names["loader"]))
    names |= dict(student=student, x=x, idx=idx)
    exec(line, names)
    (gradient,) = torch.autograd.grad(names["loss"], student.bias)
    expected = (student(x).softmax(1) - names["table"].values[idx]).mean(0)  # of KL(q_smooth || q) in the logits
    torch.testing.assert_close(gradient, expected)

    np.save("labels.npy", labels.numpy())
    flags = re.search(r"analyze_paths\.py (path\.npy [^`]*)`", README)[1].split()
    assert (analyze_paths.main(flags) / "report.html").exists()


def test_both_go_into_anybodys_checkpoint(workplace):
    """An interrupted loop goes on from its own torch.save and ends with the same path and table."""
    prob = torch.rand(3, 8, 4).softmax(2)

    def run(steps, recorder, table):
        for step in steps:
            for idx in torch.arange(8).split(3):
                recorder.record(step, idx, prob[step, idx])
                table.update(idx, prob[step, idx])
            torch.save({"recorder": recorder.state_dict(), "table": table.state_dict()}, f"{recorder.path.stem}.pt")

    whole, table = PathRecorder("whole.npy", 8, 3, 4), PredictionTable(8, 4, 0.1)
    run(range(3), whole, table)
    whole.close()
    run(range(2), PathRecorder("cut.npy", 8, 3, 4), PredictionTable(8, 4, 0.1))  # and no close(): a crash
    cut, table_after = PathRecorder("cut.npy", 8, 3, 4, resume=True), PredictionTable(8, 4, 0.1)
    saved = torch.load("cut.pt", weights_only=True)
    cut.load_state_dict(saved["recorder"])
    table_after.load_state_dict(saved["table"])
    run(range(2, 3), cut, table_after)
    cut.close()
    np.testing.assert_array_equal(np.load("cut.npy"), np.load("whole.npy"))
    assert torch.equal(table.values, table_after.values)
