"""One process at a time in a run's folder."""

import fcntl
import os
from pathlib import Path

from common.errors import BadInput


class FolderLock:
    """Holds a folder for this process: a lock that dies with it, whatever kills it, and leaves no file behind.

    Raises BadInput when another process (or another lock of this one) holds the folder.
    """

    def __init__(self, path: Path):
        self._handle = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise BadInput(f"{path}: another process is writing there; wait for it, or choose another name") from None

    def release(self):
        os.close(self._handle)
