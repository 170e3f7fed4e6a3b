"""How much code runs from main() of main_gen_teacher.py (digits, smallcnn) to the first backward pass.

    python -m benchmarks.first_backward            # lines, functions and files; --files: by file

Counted are distinct lines of the project's own files that run after main() is called (imports do not count).
"""

import collections
import sys
import tempfile
from pathlib import Path

import torch

import main_gen_teacher
from runs import run_folder

ROOT = Path(__file__).parent.parent


class Reached(Exception):
    """The first backward pass has begun."""


def lines_to_first_backward():
    """{file: {line number: function's name}} of what ran."""
    ran = collections.defaultdict(dict)

    def trace(frame, event, _):
        code = frame.f_code
        if not code.co_filename.startswith(f"{ROOT}/") or ".venv" in code.co_filename:
            return None
        if event == "line" and code.co_name != "<module>":
            ran[Path(code.co_filename).relative_to(ROOT).as_posix()][frame.f_lineno] = code.co_qualname
        return trace

    def stop(*_, **__):
        raise Reached

    backward, torch.Tensor.backward = torch.Tensor.backward, stop
    with tempfile.TemporaryDirectory() as folder:
        run_folder.RESULTS = main_gen_teacher.RESULTS = Path(folder)
        sys.settrace(trace)
        try:
            main_gen_teacher.main("--dataset digits --net smallcnn --epochs 1 --device cpu".split())
        except Reached:
            pass
        finally:
            sys.settrace(None)
            torch.Tensor.backward = backward
    ran.pop("benchmarks/first_backward.py", None)
    return ran


if __name__ == "__main__":
    ran = lines_to_first_backward()
    if "--files" in sys.argv:
        for file, lines in sorted(ran.items(), key=lambda item: -len(item[1])):
            print(f"{len(lines):4d} lines  {len(set(lines.values())):3d} functions  {file}")
    functions = {(file, name) for file, lines in ran.items() for name in lines.values()}
    print(f"{sum(map(len, ran.values()))} lines in {len(functions)} functions of {len(ran)} files")
