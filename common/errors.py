"""How the scripts tell their user what is wrong: a line or two, no traceback.

Every room raises `BadInput` for what its user got wrong (exit 2, nothing written) and `RunFailure` for what broke
while running (exit 1).
"""

import errno
import io
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable


class BadInput(Exception):
    """Mistakes in flags or files; each message names the flag or file, what was found and what to do."""

    def __init__(self, *messages):
        super().__init__("\n".join(messages))
        self.messages = list(messages)


class RunFailure(Exception):
    """A run that cannot go on: a full disk, a loss that is not finite, a file found corrupt."""


class Interrupted(KeyboardInterrupt):
    """A signal (its number) asked the process to stop; message: what became of the run."""

    def __init__(self, number, message="nothing was lost"):
        super().__init__(message)
        self.number, self.message = signal.Signals(number), message


class NeedsDownload(BadInput):
    """Data that is absent here and could not be fetched."""


def run_script(main: Callable) -> None:
    """Call main() as a script's whole life: mistakes on standard error, exit code 2 (input) or 1 (failure).

    SIGINT and SIGTERM end it with 130 and 143, and a line that says what became of the run. DEBUG=1 in the environment
    shows where it was. Output that nobody reads any more is dropped, and the work goes on.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    _open_streams()
    try:
        main()
    except (Exception, Interrupted) as found:
        code, messages = exit_of(found)
        if not messages:
            raise
        if os.environ.get("DEBUG", "0") not in ("", "0"):
            traceback.print_exc()
    else:
        return
    for message in messages:
        print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


def exit_of(found):
    """(exit code, messages) of what ended a script; no messages where the program itself is at fault."""
    if isinstance(found, BadInput):
        return 2, found.messages
    if isinstance(found, Interrupted):
        return 128 + found.number, [f"interrupted by {found.number.name}; {found.message}"]
    if isinstance(found, RunFailure):
        return 1, [str(found)]
    said = (str(found).strip() or type(found).__name__).splitlines()[0][:200]
    if is_out_of_memory(found):
        return 1, [
            f"out of memory ({said}); end other programs, or ask for less: a smaller --batch_size, --net, "
            "--image_size, --train_size or --num_work, or another --device"
        ]
    if isinstance(found, RuntimeError) and said.startswith("DataLoader worker"):
        return 1, [
            f"a process that reads images died ({said}); often the memory was short: give a smaller --num_work, "
            "--num_work 0 reads without such processes"
        ]
    if isinstance(found, OSError) and _is_of_the_system(found):  # disk and file trouble while running
        return 1, [f"{found.filename}: {found.strerror or found.args[0]}" if found.filename else str(found)]
    return 1, []


def is_out_of_memory(problem: BaseException) -> bool:
    """Whether an exception says that memory is short, a GPU's or the machine's; torch has a dozen ways to say it."""
    if isinstance(problem, MemoryError):
        return True
    if isinstance(problem, OSError):
        return problem.errno == errno.ENOMEM
    words = r"out of memory|can't allocate memory|not enough memory|_ALLOC_FAILED|bad_alloc|DefaultCPUAllocator"
    return isinstance(problem, RuntimeError) and re.search(words, str(problem)) is not None


def _is_of_the_system(problem):
    """Whether an OSError is about a file, the disk or the network; else it is the program's own mistake."""
    if problem.filename:
        return problem.errno != errno.EBADF
    return problem.errno not in (None, errno.EBADF, errno.EINVAL, errno.ESPIPE)


def _interrupt(number, frame):
    raise Interrupted(number)


# ---------------------------------------------------------------------------------------------- the terminal


class _Dropping(io.FileIO):
    """An output that a closed pipe or terminal does not stop: what nobody reads is dropped."""

    def write(self, data):
        try:
            return super().write(data)
        except OSError:
            return len(data)


def _open_streams():
    """Standard output and error that take every text and never fail."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # was closed by whoever started the script
            setattr(sys, name, open(os.devnull, "w"))
        elif stream is getattr(sys, f"__{name}__"):
            stream.flush()
            raw = _Dropping(stream.fileno(), "w", closefd=False)
            buffer = raw if stream.write_through else io.BufferedWriter(raw)
            shown = {"line_buffering": stream.line_buffering, "write_through": stream.write_through}
            setattr(sys, name, io.TextIOWrapper(buffer, stream.encoding, "backslashreplace", **shown))
