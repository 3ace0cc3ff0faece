"""Documents are written while processes are killed; then everything is looked at."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

from chaos.killer import Killer
from chaos.stage import Outcome, staged

# Kills between two checks: a fault is then told with a short history.
ROUND_KILLS: Final = 20


async def storm(folder: Path, model: dict[str, str], *, seed: int, kills: int) -> Outcome:
    """Runs it in `folder`, which is empty; model: as in `staged`."""
    async with staged(folder, model, seed) as stage:
        killer = Killer(seed, stage.cluster, stage.ledger)
        while (left := kills - killer.kills.total()) > 0:
            await stage.perform(partial(killer.rage, min(left, ROUND_KILLS)))
            await stage.check()
        stage.outcome.kills = killer.kills
    return stage.outcome
