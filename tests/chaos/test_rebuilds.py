"""The short form of rebuilding in `make chaos`: in calm, and through a few kills."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from chaos.processes import Cluster
from chaos.rebuilding import rebuilding
from chaos.rebuilds import Rebuilder
from chaos.report import told

from gateway.search.types import Chunking

REBUILDS = 1
KILLS = 4
BEFORE, ASKED = Chunking(128, 0), Chunking(256, 40)


async def test_a_rebuild_is_not_noticed_and_survives_kills(
    tmp_path: Path, model: dict[str, str], seed: int
) -> None:
    outcome = await rebuilding(tmp_path, model, seed=seed, rebuilds=REBUILDS, kills=KILLS)
    assert outcome.kills.total() == KILLS
    assert outcome.counts["rebuilds, succeeded"] >= REBUILDS
    assert outcome.counts["reads"] > 0
    assert not outcome.faults, told(outcome)


@pytest.mark.parametrize(
    ("state", "live", "right"),
    [
        ("succeeded", ASKED, True),
        ("succeeded", BEFORE, False),
        ("cancelled", BEFORE, True),
        ("cancelled", ASKED, False),
        ("failed", ASKED, False),
        ("hung", ASKED, True),
    ],
)
async def test_a_job_that_tells_what_is_not_so_is_a_fault(
    monkeypatch: pytest.MonkeyPatch, state: str, live: Chunking, right: bool
) -> None:
    async def found(_: Rebuilder) -> Chunking:
        return live

    monkeypatch.setattr(Rebuilder, "live_chunking", found)
    rebuilder = Rebuilder(1, cast(Cluster, None))
    rebuilder._live = BEFORE
    await rebuilder._check_live("a", state, ASKED)
    assert (rebuilder.faults == []) is right
