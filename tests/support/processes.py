"""Processes of others, looked at from outside."""

from __future__ import annotations

import subprocess


def gone(process: int) -> bool:
    """Whether the process has ended; nobody may be there to collect an orphan's exit code."""
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False
    )
    return state.stdout.strip() == "" or state.stdout.startswith("Z")
