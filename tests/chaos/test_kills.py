"""The short form of `make chaos`: a few kills, everything checked."""

from __future__ import annotations

from pathlib import Path

from chaos.report import told
from chaos.storm import storm

KILLS = 8


async def test_nothing_is_lost_torn_doubled_or_risen(
    tmp_path: Path, model: dict[str, str], seed: int
) -> None:
    outcome = await storm(tmp_path, model, seed=seed, kills=KILLS)
    assert outcome.kills.total() == KILLS
    assert sum(checked.present for checked in outcome.checks) > 0
    assert not outcome.faults, told(outcome)
