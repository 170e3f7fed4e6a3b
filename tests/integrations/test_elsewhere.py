"""The files copied into somebody else's repository, which has a utils.py and a data/ of its own, in two processes."""

import ast
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]
FILES = [
    "supervision/table.py",
    "paths/recorder.py",
    *sorted(f"integrations/{p.name}" for p in ROOT.glob("integrations/[a-z]*.py")),
]

UTILS = '''
import torch
import torch.nn.functional as F

EPOCHS = 3


class Network(torch.nn.Module):
    """Takes what a Trainer gives."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))

    def forward(self, x, labels):
        logits = self.layers(x)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}
'''

DATA = """
import torch

SAMPLES = 51


class Texts(torch.utils.data.Dataset):
    def __init__(self):
        self.x = torch.rand(SAMPLES, 6, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return SAMPLES

    def __getitem__(self, i):
        return {"x": self.x[i], "labels": int(self.x[i].argmax()) % 3}
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    root = tmp_path_factory.mktemp("elsewhere")
    (root / "data").mkdir()
    (root / "data" / "__init__.py").write_text(DATA)
    (root / "utils.py").write_text(UTILS)
    (root / "learning_paths").mkdir()
    for file in FILES:
        shutil.copy(ROOT / file, root / "learning_paths")
    shutil.copy(Path(__file__).with_name("elsewhere.py"), root / "train.py")
    return root


@pytest.mark.parametrize("name", FILES)
def test_each_file_imports_nothing_of_the_project_and_is_short_enough_to_read(name):
    text = (ROOT / name).read_text()
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module.split(".")[0] if node.level == 0 else ".")
    theirs = {"huggingface.py": {"transformers"}, "lightning.py": {"lightning"}}.get(Path(name).name, set())
    assert found - set(sys.stdlib_module_names) <= {"torch", "numpy"} | theirs
    assert not name.startswith("integrations/") or len(text.splitlines()) < 100


def test_the_five_lines_of_the_readme_run_there(repository):
    """The loop as it stands in the README, but for the folder that the two files were copied to."""
    code = re.search(r"## In your own training loop\n.*?```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)[1]
    code = code.replace("from paths.", "from learning_paths.").replace("from supervision.", "from learning_paths.")
    before = """
import torch
from data import SAMPLES, Texts
from learning_paths.indexed import IndexedDataset
from utils import Network
pairs = [(item["x"], item["labels"]) for item in map(Texts().__getitem__, range(SAMPLES))]
loader = torch.utils.data.DataLoader(IndexedDataset(pairs), 8, shuffle=True)
model, num_samples, num_classes, num_epochs = Network().layers, SAMPLES, 3, 2
optimizer = torch.optim.SGD(model.parameters(), 0.1)
"""
    (repository / "loop.py").write_text(before + code + 'table.save("table.npy")\n')
    subprocess.run([sys.executable, "loop.py"], cwd=repository, check=True)
    np.testing.assert_allclose(np.load(repository / "path.npy").astype(np.float32).sum(2), 1, atol=2e-3)
    np.testing.assert_allclose(np.load(repository / "table.npy").sum(1), 1, atol=1e-5)


@pytest.fixture(scope="module")
def two_processes(repository):
    """The repository after its training script ran on two processes, each batch 2 x 8 of 51 samples: 3 and a rest."""
    pytest.importorskip("transformers", reason="pip install -r requirements-dev.txt")
    pytest.importorskip("lightning", reason="pip install -r requirements-dev.txt")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = subprocess.run([sys.executable, "train.py", str(port)], cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return repository


def batches_of(which):
    """The samples of each global batch, and what fills them up, which is trained on, and not recorded."""
    if which == "huggingface":  # batches of 8 in turn; the last round starts again with the first samples
        order = [*range(51), *range(13)]
        return [order[start : start + 16] for start in range(0, 64, 16)]
    order = [*range(51), 0]  # each process has every second sample
    return [order[start : start + 16] for start in range(0, 52, 16)]


@pytest.mark.parametrize("which", ["huggingface", "lightning"])
def test_two_processes_record_the_path_and_the_table_of_a_plain_loop(which, two_processes):
    names = {}
    exec(UTILS + DATA, names)
    model, texts = names["Network"](), names["Texts"]()
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    expected, average = np.zeros((51, 3, 3), np.float32), torch.zeros(51, 3)
    for epoch in range(3):
        for batch in batches_of(which):
            items = [texts[i] for i in batch]
            found = model(torch.stack([item["x"] for item in items]), torch.tensor([item["labels"] for item in items]))
            prob = found["logits"].detach().softmax(1)
            for i, p in zip(batch, prob, strict=True):
                if not expected[i, epoch].any():
                    expected[i, epoch] = p
                    average[i] = p if epoch == 0 else 0.7 * average[i] + 0.3 * p
            optimizer.zero_grad()
            found["loss"].backward()
            optimizer.step()
    np.testing.assert_allclose(np.load(two_processes / f"{which}.npy"), expected, atol=1e-3)
    for rank in (0, 1):
        np.testing.assert_allclose(np.load(two_processes / f"{which}_{rank}_table.npy"), average, atol=1e-5)
