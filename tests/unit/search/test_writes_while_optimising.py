"""Writes while the next generation answers nothing, as the embedded one when it is optimised."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from support.embedder import CountingEmbedder
from support.gateways import NEW, Gateway, documents, only_what_counts
from support.store import COLLECTION, soon

from gateway.indexing import NewDocument
from gateway.preparing import Preparer
from gateway.search.points import at
from gateway.search.types import Target
from runtime.deadline import Deadline, expired

WRITES: dict[str, Callable[[Gateway], Awaitable[object]]] = {
    "put": lambda gateway: gateway.put("a", "mine"),
    "delete": lambda gateway: gateway.delete("a"),
}
AFTER = {"put": {"a": "mine"}, "delete": {}}


class Optimising:
    """The next generation of a gateway's store, which answers reads once it is `done`."""

    def __init__(self, gateway: Gateway) -> None:
        self._retrieve = gateway.points.retrieve
        self.done = asyncio.Event()
        self.asked = asyncio.Event()
        gateway.points.retrieve = self._wait  # type: ignore[method-assign]

    async def _wait(self, address: str, ids: Any, deadline: Deadline, **options: Any) -> Any:
        if address == at(COLLECTION, 2) and not self.done.is_set():
            self.asked.set()
            try:
                async with asyncio.timeout(deadline.share_s()):
                    await self.done.wait()
            except TimeoutError:
                raise expired() from None
        return await self._retrieve(address, ids, deadline, **options)


async def being_built(monkeypatch: pytest.MonkeyPatch) -> tuple[Gateway, Optimising]:
    gateway = Gateway()
    await gateway.start()
    await gateway.put("a", "one")
    await gateway.copy()
    # Looking at a stamp would fail at once, as after LOOK_TIMEOUT_S.
    monkeypatch.setattr("gateway.search.records.LOOK_TIMEOUT_S", 0.1)
    return gateway, Optimising(gateway)


@pytest.mark.parametrize("name", WRITES)
async def test_a_write_waits_for_it_and_is_done(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway, optimising = await being_built(monkeypatch)
    writing = asyncio.ensure_future(WRITES[name](gateway))
    await optimising.asked.wait()
    # It waits in the step that has the time for it: the live generation holds the write.
    assert await documents(gateway) == AFTER[name]
    optimising.done.set()
    await writing
    await gateway.switch()
    assert await documents(gateway) == AFTER[name]
    await only_what_counts(gateway)


@pytest.mark.parametrize("name", WRITES)
async def test_a_write_whose_caller_ran_out_of_time_goes_on_to_its_end(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, optimising = await being_built(monkeypatch)
    writing = asyncio.ensure_future(WRITES[name](gateway))
    await optimising.asked.wait()
    writing.cancel()  # what the request's time-out does
    await asyncio.wait([writing])
    assert writing.cancelled()
    optimising.done.set()
    await gateway.stand_still()
    await gateway.switch()
    assert await documents(gateway) == AFTER[name]
    await only_what_counts(gateway)


async def test_what_it_holds_of_a_document_is_embedded_anew_rather_than_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gateway, optimising = await being_built(monkeypatch)
    monkeypatch.setattr("gateway.preparing.LOOK_S", 0.1)
    embedder = CountingEmbedder()
    preparer = Preparer(gateway.search, embedder, batch_size=8)
    stamp = await gateway.search.stamp(COLLECTION, soon())
    target = Target(at(COLLECTION, 2), NEW, stamp.chunking)
    new = await preparer.prepare(NewDocument("a", "two words", {}), target, soon())
    assert optimising.asked.is_set()
    assert embedder.calls == [["two words"]]
    assert all(np.frombuffer(chunk.vector, "<f4").size for chunk in new.chunks)
    await preparer.aclose()
