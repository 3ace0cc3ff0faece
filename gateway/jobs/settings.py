"""What the jobs read from the environment."""

from __future__ import annotations

from pydantic import Field

from runtime.settings import Settings


class JobSettings(Settings):
    """Settings of the jobs. A field's environment name is its own in capitals."""

    jobs: bool = Field(
        True,
        description="Whether this gateway runs jobs (POST /index?wait=false, POST /reindex), "
        "kept in DATA_DIR. Of several gateways over one Qdrant server, let one do it.",
    )
    jobs_queued: int = Field(
        16, ge=1, le=1000, description="Jobs that may wait; one more is 503 QUEUE_FULL."
    )
    jobs_kept: int = Field(
        100, ge=1, le=10_000, description="Ended jobs that GET /jobs still tells of."
    )
    jobs_spool_bytes: int = Field(
        1 << 30,
        ge=1 << 20,
        le=1 << 40,
        description="Documents of waiting jobs on the disk; more is 503 QUEUE_FULL.",
    )
    job_stall_seconds: float = Field(
        600.0,
        ge=1,
        le=86_400,
        description="A job that gets no further for this long fails. A part that is away is "
        "waited for until then.",
    )
