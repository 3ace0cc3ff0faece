"""One process at a time in a directory: a lock that goes with the process that holds it."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Final

# How long a predecessor that lost its gateway may take to flush and leave.
LOCK_WAIT_S: Final = 5.0
RETRY_S: Final = 0.1


class Locked(Exception):
    """Another process holds the directory."""


def hold(path: Path) -> int:
    """Locks the directory for the life of this process; returns the lock's descriptor.

    The lock is a file beside it, `<path>.lock`: the directory itself may be removed under it.
    Raises Locked.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(lock_path(path), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise Locked from error
    return descriptor


def lock_path(path: Path) -> Path:
    """The file that the lock of the directory is on."""
    return path.with_name(f"{path.name}.lock")


def hold_within(path: Path, wait_s: float) -> int:
    """As `hold`, waiting for a holder that is on its way out. Blocks."""
    give_up_s = time.monotonic() + wait_s
    while True:
        try:
            return hold(path)
        except Locked:
            if time.monotonic() > give_up_s:
                raise
            time.sleep(RETRY_S)
