"""The exports that the images carry: made by the very command of the Dockerfile, found by workers.

No container engine is needed for it: the command is run here, with folders of the test's own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.deployables import ROOT
from support.models import MINILM

from embedder_worker.settings import EmbedderSettings
from encoders.blueprint import Kind
from encoders.export import cache_key, is_complete
from encoders.identity import fingerprint
from encoders.location import locate, trained
from generator_worker.settings import GeneratorSettings
from reranker_worker.settings import RerankerSettings


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports")
    stage = (ROOT / "Dockerfile").read_text().split(" AS exports\n")[1].split("\nFROM ")[0]
    (command,) = re.findall(r"^RUN ((?:.*\\\n)*.*)$", stage, re.MULTILINE)
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    subprocess.run(
        ["/bin/sh", "-c", command.replace(" /exports", f" {folder}")],
        cwd=ROOT,
        env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return folder


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        ("embedding", EmbedderSettings.model_fields["embedding_model"].default),
        ("late_interaction", RerankerSettings.model_fields["reranker_model"].default),
        ("reader", GeneratorSettings.model_fields["reader_model"].default),
    ],
)
def test_default_model_is_there_under_the_name_that_workers_look_for(
    exports: Path, kind: Kind, model: str
) -> None:
    made = exports / kind / cache_key(fingerprint(locate(model), kind=kind))
    assert is_complete(made)
    # Copied by root, read by another user.
    for path in (made, *made.iterdir()):
        assert path.stat().st_mode & 0o004


def test_every_adapter_is_there_and_nothing_else(exports: Path) -> None:
    expected = {("embedding", locate(MINILM))}
    for name in trained():
        files = locate(name)
        assert files.adapter is not None
        expected.add((files.adapter.kind, files))
    made = {(folder.parent.name, folder.name) for folder in exports.glob("*/*")}
    assert made == {(kind, cache_key(fingerprint(files, kind=kind))) for kind, files in expected}
