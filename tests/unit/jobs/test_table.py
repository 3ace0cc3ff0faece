"""What is refused for want of room names the setting that says how much there is."""

from __future__ import annotations

import pytest

from gateway.jobs.table import JobLimits, JobTable, NewJob
from runtime.errors import Reason, ServiceError


@pytest.mark.parametrize(
    ("queued", "words"),
    [
        (1, "1 jobs wait already, as many as may (JOBS_QUEUED)."),
        (2, "take 600 bytes, and 401 more would pass 1000 (JOBS_SPOOL_BYTES)."),
    ],
)
def test_a_refusal_names_the_limit(queued: int, words: str) -> None:
    table = JobTable(JobLimits(queued=queued, kept=1, spool_bytes=1000, stall_s=1.0))
    table.reserve(NewJob("index", "documents", None, 600))
    with pytest.raises(ServiceError) as caught:
        table.reserve(NewJob("index", "documents", None, 401))
    assert caught.value.reason == Reason.QUEUE_FULL
    assert words in caught.value.message
