"""How a model is to be run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Final, Literal

BackendName = Literal["auto", "openvino", "torch"]
Precision = Literal["bf16", "fp32"]
PrecisionName = Literal["auto", "bf16", "fp32"]

# Exports made by a worker survive a restart here.
DEFAULT_CACHE_DIR: Final = Path("~/.cache/production-rag/models")
# Images carry exports here, made when they were built.
DEFAULT_EXPORTS_DIR: Final = Path("/opt/exports")


@dataclass(frozen=True, slots=True)
class Runtime:
    """How to run a model.

    backend, precision: "auto" chooses by the machine.
    threads: 0 takes what the cgroup's quota allows.
    cache_dir: where exports are kept; None makes one each time.
    stopped: set by another thread, it ends a load that takes long.
    exports_dir: exports made beforehand; looked into first, never written.
    streams: batches that OpenVINO computes at once, sharing the threads; 0 chooses by the
        model's size. torch has two on a GPU and one on a CPU.
    """

    backend: BackendName = "auto"
    precision: PrecisionName = "auto"
    threads: int = 0
    cache_dir: Path | None = DEFAULT_CACHE_DIR
    stopped: Event = field(default_factory=Event, compare=False)
    exports_dir: Path | None = None
    streams: int = 0
