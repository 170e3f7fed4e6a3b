"""How the scripts tell their user what is wrong: a line or two a mistake, all in one go, no traceback.

Every room raises `BadInput` for what its user got wrong (exit 2, nothing written) and `RunFailure` for
what broke while running (exit 1). `Problems` gathers them, so that two mistakes are both named at once.
"""

import codecs
import contextlib
import errno
import io
import os
import re
import signal
import sys
import traceback


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
    """Data that is absent here and could not be fetched; not worth a word while something else is wrong."""


class Problems:
    """Gathers the mistakes of several checks and raises them together.

    `broken` names the flags whose values could not be read: a check that needs one of them is skipped,
    since it would only repeat the same mistake in other words.
    """

    def __init__(self, parser=None):
        self.parser = parser
        self.messages = []
        self.broken = set()

    def add(self, message, flag=None):
        self.messages.append(message)
        if flag:
            self.broken.add(flag)

    @contextlib.contextmanager
    def collect(self):
        """Run the block; a BadInput raised in it is kept for later instead of stopping the script here."""
        try:
            yield
        except BadInput as found:
            self.messages += found.messages

    def fits(self, file, flag, found):
        """Whether what a file holds for a flag can be a value of it; if not, that is a problem."""
        expected = self.parser.expected(flag, found)
        if expected:
            self.add(f"{file}: {flag} is {found!r:.40}: {expected}; take an intact copy", flag)
        return not expected

    def stop_if_any(self):
        """Raise BadInput with all that was gathered, if anything was."""
        if self.messages:
            raise BadInput(*dict.fromkeys(self.messages))


def run_script(main):
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


def is_out_of_memory(problem):
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
    codecs.register_error("as_shown", _as_shown)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # was closed by whoever started the script
            setattr(sys, name, open(os.devnull, "w"))
        elif stream is getattr(sys, f"__{name}__"):
            stream.flush()
            raw = _Dropping(stream.fileno(), "w", closefd=False)
            buffer = raw if stream.write_through else io.BufferedWriter(raw)
            shown = {"line_buffering": stream.line_buffering, "write_through": stream.write_through}
            setattr(sys, name, io.TextIOWrapper(buffer, stream.encoding, "as_shown", **shown))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="as_shown")


def _as_shown(problem):
    """Bytes of a file's name that are no UTF-8 as they are; what the terminal's encoding lacks as \\xe9 and such."""
    text = problem.object[problem.start : problem.end]
    if isinstance(text, bytes) or all("\udc80" <= c <= "\udcff" for c in text):  # bytes: being read again
        return codecs.lookup_error("surrogateescape")(problem)
    return codecs.lookup_error("backslashreplace")(problem)
