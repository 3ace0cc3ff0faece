"""The launcher's hold on the terminal."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def foreground() -> Iterator[None]:
    """Makes this process a foreground group of its own, when it has a terminal.

    Ctrl-C then reaches the launcher alone. `make`, one group with it otherwise,
    would answer the same Ctrl-C by dying of SIGINT (status 130) although all
    was stopped in good order. Ctrl-Z is ignored: it would stop the launcher and
    leave `make` waiting in the background with the terminal lost.
    """
    if not sys.stdin.isatty() or os.getpid() == os.getpgrp():
        yield
        return
    terminal = sys.stdin.fileno()
    before = os.getpgrp()
    if os.tcgetpgrp(terminal) != before:  # started in the background: stay there
        yield
        return
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # allows the way back at the end
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    os.setpgid(0, 0)
    os.tcsetpgrp(terminal, os.getpgrp())
    try:
        yield
    finally:
        os.tcsetpgrp(terminal, before)
