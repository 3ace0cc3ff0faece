"""OpenVINO's first use from several threads at once, in a process that has not used it before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.models import exports

ROOT = Path(__file__).resolve().parents[3]
# Eight threads at a barrier hung 9 of 12 processes whose model had not been run once before.
CODE = """
import sys, threading
from pathlib import Path
from encoders.embedding import load_embedding_model
from encoders.openvino_import import import_openvino
from encoders.options import Runtime

runtime = Runtime(backend="openvino", threads=2, cache_dir=Path(sys.argv[1]))
model = load_embedding_model("sentence-transformers/all-MiniLM-L6-v2", runtime)
convert, together = import_openvino().Type.i64.to_dtype, threading.Barrier(8)

def first() -> None:
    together.wait()
    convert()

threads = [threading.Thread(target=first) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("all done")
"""


def test_threads_may_convert_their_first_arrays_at_once() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(exports())],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip().endswith("all done")
