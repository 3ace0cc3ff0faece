"""When the launcher gives a child up, and how it words an exit."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy import child as child_module
from deploy.child import EXIT_GAVE_UP, MAX_START_ATTEMPTS, Child, describe


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(child_module, "FIRST_BACKOFF_S", 0.001)
    return []


def child(folder: Path, source: str, said: list[str]) -> Child:
    (folder / "rag_test_child.py").write_text(source)
    environment = {"PYTHONPATH": str(folder)}
    return Child("embedder", "rag_test_child", environment, lambda _, text: said.append(text))


async def test_gives_up_a_child_that_never_comes_up(tmp_path: Path, said: list[str]) -> None:
    assert await child(tmp_path, "raise SystemExit(1)", said).keep() == EXIT_GAVE_UP
    assert len(said) == MAX_START_ATTEMPTS
    assert said[0] == "exited with 1; starting again in 0.001 s"
    assert said[1] == "exited with 1; starting again in 0.002 s"
    assert said[-1] == f"exited with 1; gave up after {MAX_START_ATTEMPTS} attempts"


@pytest.mark.parametrize("code", [2, 3])
async def test_fault_no_restart_cures_is_returned(
    tmp_path: Path, said: list[str], code: int
) -> None:
    assert await child(tmp_path, f"raise SystemExit({code})", said).keep() == code
    assert said == []


async def test_resource_taken_is_tried_again_by_a_child_that_had_it(
    tmp_path: Path, said: list[str]
) -> None:
    """The last life's own remains may still hold the lock for a moment."""
    source = f"""
import os, pathlib, socket
lives = pathlib.Path({str(tmp_path / "lives")!r})
life = int(lives.read_text()) if lives.exists() else 0
lives.write_text(str(life + 1))
if life == 0:
    control = socket.socket(fileno=int(os.environ["CONTROL_FD"]))
    control.sendall(b'{{"event": "ready", "detail": "up"}}\\n')
    while not lives.with_name("read").exists():
        pass
raise SystemExit(3 if life < 3 else 2)
"""

    def say(_: str, text: str) -> None:
        said.append(text)
        (tmp_path / "read").touch()

    (tmp_path / "rag_test_child.py").write_text(source)
    environment = {"PYTHONPATH": str(tmp_path)}
    assert await Child("gateway", "rag_test_child", environment, say).keep() == 2
    assert [text.split(";")[0] for text in said[1:]] == ["exited with 3"] * 3


def test_endings_in_words() -> None:
    assert describe(1) == "exited with 1"
    assert describe(-9) == "was killed by SIGKILL"
