"""The short form of rebuilding in `make chaos`: in calm, and through a few kills."""

from __future__ import annotations

from pathlib import Path

from chaos.rebuilding import rebuilding
from chaos.report import told

REBUILDS = 1
KILLS = 4


async def test_a_rebuild_is_not_noticed_and_survives_kills(
    tmp_path: Path, model: dict[str, str], seed: int
) -> None:
    outcome = await rebuilding(tmp_path, model, seed=seed, rebuilds=REBUILDS, kills=KILLS)
    assert outcome.kills.total() == KILLS
    assert outcome.counts["rebuilds, succeeded"] >= REBUILDS
    assert outcome.counts["reads"] > 0
    assert not outcome.faults, told(outcome)
