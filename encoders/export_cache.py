"""Where exports are kept: found, made once by whoever comes first, made anew when damaged.

They are looked for in the folder of those made beforehand, which is only read, then in the
cache. A worker that finds none makes one in a child, so that the 400 MB torch takes go with
the child.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Final, TypeVar

from encoders.blueprint import Kind
from encoders.export import MAKING, cache_key, is_complete
from encoders.location import ModelFiles, ModelUnusableError
from encoders.options import Runtime

log = logging.getLogger(__name__)

T = TypeVar("T")

# Loading and tracing a model of 100 MB takes 8 s here; of 2 GB, minutes.
EXPORT_TIMEOUT_S: Final = 900.0

_POLL_S: Final = 0.2
_INTERRUPT_S: Final = 5.0


def open_export(
    files: ModelFiles,
    kind: Kind,
    model_fingerprint: str,
    runtime: Runtime,
    read: Callable[[Path], T],
) -> T:
    """What `read` makes of the folder with the model's export.

    An export that `read` cannot use is passed over; in the cache it is made anew. A cache
    that cannot be written is done without.

    Raises ModelUnusableError when none can be made, or when `runtime.stopped` is set.
    """
    key = cache_key(model_fingerprint)
    cache = None if runtime.cache_dir is None else runtime.cache_dir.expanduser().absolute()
    for kept in (runtime.exports_dir, cache):
        found = None if kept is None else _read(kept.expanduser() / key, read)
        if found is not None:
            return found
    if cache is not None:
        try:
            with _locked(cache, key, runtime.stopped):
                return _read_or_make(files, kind, cache / key, runtime.stopped, read)
        except OSError as error:
            log.warning("the model cache cannot be written: %s", error.strerror)
    with tempfile.TemporaryDirectory(prefix="export-") as made:
        return _read_or_make(files, kind, Path(made) / key, runtime.stopped, read)


def _read(folder: Path, read: Callable[[Path], T]) -> T | None:
    """None when there is no export, or one that cannot be used."""
    if not is_complete(folder):
        return None
    try:
        return read(folder)
    except Exception:  # OpenVINO raises a bare RuntimeError for a file that was cut
        log.warning("the export in %s is damaged", folder, exc_info=True)
        return None


def _read_or_make(
    files: ModelFiles, kind: Kind, folder: Path, stopped: Event, read: Callable[[Path], T]
) -> T:
    found = _read(folder, read)
    if found is not None:
        return found
    _remove_stale(folder.parent)
    if folder.exists():
        # Renamed first: nobody sees a folder that is half there.
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=MAKING) as away:
            folder.rename(Path(away) / folder.name)
    log.info("exporting the model, once", extra={"model": files.name, "kind": kind})
    _export_in_child(files, kind, folder.parent, stopped)
    return read(folder)


@contextmanager
def _locked(cache_dir: Path, key: str, stopped: Event) -> Iterator[None]:
    """Holds the export's lock: workers that start together make one export, not one each.

    Raises OSError when the cache cannot be written or the lock is held for too long,
    ModelUnusableError when `stopped` is set.
    """
    cache_dir.mkdir(parents=True, exist_ok=True)
    if not os.access(cache_dir, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(cache_dir))
    give_up_s = time.monotonic() + EXPORT_TIMEOUT_S
    # The lock goes with the file, however the process ends.
    with (cache_dir / f"{key}.lock").open("a") as file:
        while not _try_lock(file.fileno()):
            if time.monotonic() > give_up_s:
                raise TimeoutError(errno.ETIMEDOUT, "another process is still making the export")
            if stopped.wait(_POLL_S):
                raise ModelUnusableError("stopped while another process made the model's export")
        yield


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove_stale(cache_dir: Path) -> None:
    """What a process left that was killed while it made an export."""
    oldest_s = time.time() - EXPORT_TIMEOUT_S
    for folder in cache_dir.glob(f"{MAKING}*"):
        if folder.stat().st_mtime < oldest_s:
            shutil.rmtree(folder, ignore_errors=True)


def _export_in_child(files: ModelFiles, kind: Kind, cache_dir: Path, stopped: Event) -> None:
    command = [sys.executable, "-m", "encoders.export", "--kind", kind]
    command += ["--model", str(files.source), "--cache-dir", str(cache_dir)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    complaint = _wait(child, stopped)
    if child.returncode != 0:
        last_line = (complaint.strip().splitlines() or ["it was stopped"])[-1]
        raise ModelUnusableError(f"{files.name} cannot be exported for OpenVINO: {last_line}")


def _wait(child: subprocess.Popen[str], stopped: Event) -> str:
    """What the child wrote to stderr. It is interrupted when `stopped` is set, or too slow."""
    give_up_s = time.monotonic() + EXPORT_TIMEOUT_S
    while not stopped.is_set() and time.monotonic() < give_up_s:
        try:
            return child.communicate(timeout=_POLL_S)[1]
        except subprocess.TimeoutExpired:
            continue
    # An interrupt lets it take its half-made folder away.
    child.send_signal(signal.SIGINT)
    try:
        return child.communicate(timeout=_INTERRUPT_S)[1]
    except subprocess.TimeoutExpired:
        child.kill()
        return child.communicate()[1]
