"""Stopping when asked to: the step in hand is finished, what was learned is saved, then the run ends.

The first SIGINT or SIGTERM (Ctrl-C; Slurm, Kubernetes, Colab) is only noted while training; the loop and every
evaluation look for it between their batches. A second one stops at once: files are whole at any moment.
"""

import contextlib
import os
import signal
import threading

from common.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_noted = None  # the first signal that came


@contextlib.contextmanager
def noted_signals():
    """Within the block, a signal is noted instead of stopping the process (in the main thread; others get none)."""
    global _noted
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _note) for number in SIGNALS}
    try:
        yield
        stop_if_asked()  # one that came after the last look must not be forgotten
    finally:
        _noted = None
        for number, handler in before.items():
            signal.signal(number, handler)


def _note(number, frame):
    global _noted
    if _noted is not None and "TORCHELASTIC_RUN_ID" not in os.environ:  # torchrun passes on what came to all anyway
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    _noted = number


def noted():
    """The signal that was noted, or None."""
    return _noted


def stop_if_asked():
    """Interrupted when a signal was noted."""
    if _noted is not None:
        raise Interrupted(_noted)
