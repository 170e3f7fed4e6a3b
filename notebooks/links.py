"""Where the notebooks are published, in one place: a fork changes the two lines below and runs this file.

    python notebooks/links.py

Writes the "Open in Colab" badges into the notebooks and README.md, and REPO_URL into the notebooks' setup cells.
"""

import json
import os
import re
from pathlib import Path

REPO_URL = "https://github.com/Joshua-Ren/better_supervisory_signal"  # any URL that git clones
BRANCH = "main"

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = {  # name: what it shows
    "ToyGaussian_Part1_noisylabel": "a network does better the closer its targets are to the true p*(y|x)",
    "ToyGaussian_Part2_LearningDynamics": "easy samples go straight to their label, hard ones in a zig-zag",
    "ToyGaussian_Part3_NTK": "what one step of SGD does to every prediction, and why paths bend",
    "CIFAR10_path_analysis": "recorded paths of real images: wrong labels, filters, people's opinions",
}
BADGE = "<!-- badge -->"
START, END = "<!-- notebooks -->", "<!-- /notebooks -->"
GITHUB = re.compile(
    r"(?:(?:https?|git|ssh)://(?:[^@/]+@)?|git@)(?:www\.)?github\.com[:/]([\w.-]+)/([\w.-]+?)(?:\.git)?/?"
)


def badge(name, repo_url, branch):
    """The badge of a notebook as HTML (no Markdown is read after a comment), or nothing: Colab opens GitHub only."""
    if not (github := GITHUB.fullmatch(repo_url)):
        return ""
    page = f"https://colab.research.google.com/github/{github[1]}/{github[2]}/blob/{branch}/notebooks/{name}.ipynb"
    picture = "https://colab.research.google.com/assets/colab-badge.svg"
    return f'<a href="{page}"><img src="{picture}" alt="Open in Colab"></a>'


def linked_notebook(text, name, repo_url, branch):
    """A notebook's JSON with its badge and its REPO_URL. ValueError when it has no place for one of them."""
    notebook, places = json.loads(text), {"badge": 0, "setup": 0}
    for cell in notebook["cells"]:
        is_first, is_setup = cell is notebook["cells"][0], "setup" in cell["metadata"].get("tags", [])
        if not (is_first or is_setup):
            continue
        lines = "".join(cell["source"]).split("\n")
        for i, line in enumerate(lines):
            if is_first and line.startswith(BADGE):
                lines[i], places["badge"] = BADGE + badge(name, repo_url, branch), places["badge"] + 1
            if is_setup and line.startswith("REPO_URL = "):
                lines[i], places["setup"] = f"REPO_URL = {json.dumps(repo_url)}", places["setup"] + 1
        cell["source"] = "\n".join(lines).splitlines(keepends=True)
    if places != {"badge": 1, "setup": 1}:
        raise ValueError(
            f"{name}.ipynb: needs one line {BADGE} in its first cell and one line REPO_URL = ... in a cell with the "
            f"tag setup, found {places['badge']} and {places['setup']}"
        )
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"  # as nbformat writes it


def linked_readme(text, names, repo_url, branch):
    """README.md with the list of notebooks between its two marks. ValueError when they are not there."""
    if text.count(START) != 1 or text.count(END) != 1:
        raise ValueError(f"README.md: needs the lines {START} and {END}, once each")
    before, after = text.split(START)[0], text.split(END)[1]
    lines = []
    for name in names:
        link = badge(name, repo_url, branch)
        lines.append(f"- [{name}](notebooks/{name}.ipynb): {NOTEBOOKS[name]}{' ' + link if link else ''}\n")
    return f"{before}{START}\n{''.join(lines)}{END}{after}"


def write_links(root=ROOT, repo_url=REPO_URL, branch=BRANCH):
    """Bring all notebooks and README.md below root in step with repo_url; returns the files that changed."""
    changed = []
    there = [name for name in NOTEBOOKS if (root / "notebooks" / f"{name}.ipynb").is_file()]
    new = {root / "README.md": lambda text: linked_readme(text, NOTEBOOKS, repo_url, branch)}
    for name in there:
        new[root / "notebooks" / f"{name}.ipynb"] = lambda text, name=name: linked_notebook(
            text, name, repo_url, branch
        )
    for path, link in new.items():
        text = path.read_text(encoding="utf-8")
        if (linked := link(text)) != text:
            partial = path.with_name(path.name + ".partial")
            partial.write_text(linked, encoding="utf-8")
            os.replace(partial, path)
            changed.append(path)
    return changed


if __name__ == "__main__":
    changed = write_links()
    print("\n".join(str(path.relative_to(ROOT)) for path in changed) or "all in step")
