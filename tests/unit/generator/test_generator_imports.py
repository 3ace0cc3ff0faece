"""What the generator worker loads before its port is bound."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_neither_dspy_nor_torch_is_imported_before_it_is_needed() -> None:
    program = (
        "import sys, generator_worker.worker;"
        "print(*sorted({'dspy', 'litellm', 'openvino', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == ""
