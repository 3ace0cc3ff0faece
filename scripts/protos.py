"""Writes the stubs of every .proto under protos/ beside it, or below the folder given."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from grpc_tools import protoc

PROTOS = Path(__file__).parents[1] / "protos"


def main() -> int:
    """Returns protoc's exit code."""
    out = sys.argv[1] if len(sys.argv) > 1 else str(PROTOS)
    # protoc finds the mypy plugins on PATH; they lie beside the interpreter.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    outputs = [f"--{kind}_out={out}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    sources = [str(path) for path in sorted(PROTOS.rglob("*.proto"))]
    return int(protoc.main(["protoc", f"--proto_path={PROTOS}", *outputs, *sources]))


if __name__ == "__main__":
    sys.exit(main())
