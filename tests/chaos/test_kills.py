"""The short form of `make chaos`: a few kills, everything checked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from chaos.model import small_model
from chaos.report import told
from chaos.storm import storm

KILLS = 8
# Another one each time in CHAOS_SEED; a failure prints what it was.
SEED = int(os.environ.get("CHAOS_SEED", "4"))


@pytest.mark.asyncio(loop_scope="function")
async def test_nothing_is_lost_torn_doubled_or_risen(tmp_path: Path) -> None:
    outcome = await storm(tmp_path, small_model(tmp_path), seed=SEED, kills=KILLS)
    assert outcome.kills.total() == KILLS
    assert sum(checked.present for checked in outcome.checks) > 0
    assert not outcome.faults, told(outcome)
