"""notebooks/links.py: one URL, and every badge and setup cell follows it."""

import json
import shutil

import pytest

from notebooks import links

FORK = "https://gitlab.example.org/somebody/fork.git"


@pytest.fixture
def copy(tmp_path):
    """A copy of all that links.py writes to."""
    (tmp_path / "notebooks").mkdir()
    for path in [links.ROOT / "README.md", *(links.ROOT / "notebooks").glob("*.ipynb")]:
        shutil.copyfile(path, tmp_path / path.relative_to(links.ROOT))
    return tmp_path


def notebooks_in(root):
    found = sorted((root / "notebooks").glob("*.ipynb"))
    assert found
    return found


def setup_cell(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "".join(next(cell["source"] for cell in cells if "setup" in cell["metadata"].get("tags", [])))


def test_everything_committed_is_in_step(copy):
    assert links.write_links(copy) == []


def test_a_fork_on_github_changes_every_place(copy):
    changed = links.write_links(copy, "git@github.com:somebody/fork.git", "develop")
    assert set(changed) == {copy / "README.md", *notebooks_in(copy)}
    start = "https://colab.research.google.com/github/somebody/fork/blob/develop/notebooks/"
    readme = (copy / "README.md").read_text(encoding="utf-8")
    for path in notebooks_in(copy):
        text = path.read_text(encoding="utf-8")
        assert text.count(f"{start}{path.name}") == 1 and links.REPO_URL not in text
        assert 'REPO_URL = "git@github.com:somebody/fork.git"\n' in setup_cell(path)
        assert readme.count(f"{start}{path.name}") == 1
    assert "Joshua-Ren" not in readme


def test_elsewhere_than_on_github_there_is_no_badge_and_the_way_back_is_open(copy):
    links.write_links(copy)
    before = {path: path.read_bytes() for path in (copy / "README.md", *notebooks_in(copy))}
    links.write_links(copy, FORK)
    for path in notebooks_in(copy):
        assert "colab.research" not in path.read_text(encoding="utf-8")
        assert f'REPO_URL = "{FORK}"\n' in setup_cell(path)
    readme = (copy / "README.md").read_text(encoding="utf-8")
    assert "colab.research" not in readme and readme.count("(notebooks/") == len(links.NOTEBOOKS)
    links.write_links(copy)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    "url",
    ["https://github.com/a/b", "https://github.com/a/b.git", "https://github.com/a/b/", "ssh://git@github.com/a/b.git"],
)
def test_the_urls_that_git_takes_for_a_github_repository(url):
    assert "/github/a/b/blob/main/notebooks/X.ipynb" in links.badge("X", url, "main")


@pytest.mark.parametrize("url", ["file:///a/github.com/b", "https://github.com.example.org/a/b", "/somewhere/github"])
def test_urls_that_only_look_like_github(url):
    assert links.badge("X", url, "main") == ""


def test_a_notebook_without_its_places_is_named(copy):
    path = notebooks_in(copy)[0]
    path.write_text(path.read_text(encoding="utf-8").replace(links.BADGE, ""), encoding="utf-8")
    with pytest.raises(ValueError, match=f"{path.stem}.*{links.BADGE}"):
        links.write_links(copy)


def test_a_readme_without_its_marks_is_named(copy):
    (copy / "README.md").write_text("nothing", encoding="utf-8")
    with pytest.raises(ValueError, match="README.md.*<!-- notebooks -->"):
        links.write_links(copy)
