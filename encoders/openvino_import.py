"""The one way to OpenVINO: without its telemetry."""

from __future__ import annotations

import sys
from types import ModuleType


def import_openvino() -> ModuleType:
    """The `openvino` module.

    On import, OpenVINO reports to Google Analytics through `openvino_telemetry`, by
    a fork of a process that already runs gRPC's threads. It does without when that
    package is not there, and so it is made not to be there: nothing is sent.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino

    module: ModuleType = openvino
    return module
