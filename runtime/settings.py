"""Settings from the environment or `.env`, with every fault reported at once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

EXIT_BAD_SETTINGS = 2

S = TypeVar("S", bound="Settings")


class Settings(BaseSettings):
    """What every process reads. A field's environment name is its own in capitals."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=True,
    )

    log_level: str = Field(
        "INFO",
        pattern="^(DEBUG|INFO|WARNING|ERROR)$",
        description="Least severe line that is logged.",
    )
    drain_pause_seconds: float = Field(
        1.0,
        ge=0,
        le=60,
        description="On SIGTERM: how long a process says 'not ready' before it refuses new work, "
        "so that load balancers look elsewhere first.",
    )
    drain_timeout_seconds: float = Field(
        30.0,
        ge=0,
        le=3600,
        description="On SIGTERM: how long requests in flight may take to finish.",
    )
    control_fd: int | None = Field(
        None,
        ge=3,
        description="Set by the local launcher alone: a socket on which a process reports its "
        "ports and that it is ready, and whose end means that it must exit.",
    )


class WorkerSettings(Settings):
    """What the three workers read beside `Settings`."""

    grpc_host: str = Field("0.0.0.0", description="Address the gRPC server listens on.")
    grpc_port: int = Field(50051, ge=0, le=65535, description="Port; 0 takes a free one.")
    metrics_host: str = Field("0.0.0.0", description="Address `/metrics` listens on.")
    metrics_port: int = Field(9090, ge=0, le=65535, description="Port; 0 takes a free one.")
    max_concurrent_rpcs: int = Field(
        256, ge=1, le=100_000, description="Calls held at once; one more is RESOURCE_EXHAUSTED."
    )
    max_connection_age_seconds: float = Field(
        60.0,
        ge=1,
        le=86_400,
        description="A client's connection ends after this long, so that it finds new replicas.",
    )
    max_connection_age_grace_seconds: float = Field(
        60.0,
        ge=1,
        le=86_400,
        description="How much longer calls on such a connection may run.",
    )


def load(settings: type[S], *beside: type[Settings]) -> S:
    """Reads `settings`; prints every fault by its environment name and exits 2 on any.

    beside: settings of other processes, whose faults are to be told at the same time.
    """
    faults: dict[str, None] = {}  # in order, each once
    loaded: S | None = None
    for one in (settings, *beside):
        try:
            read = one()
        except ValidationError as error:
            faults |= dict.fromkeys(_lines(error))
        else:
            if loaded is None and isinstance(read, settings):
                loaded = read
    if faults or loaded is None:
        print("\n".join(faults), file=sys.stderr)
        sys.exit(EXIT_BAD_SETTINGS)
    return loaded


def _lines(error: ValidationError) -> Iterator[str]:
    for fault in error.errors(include_url=False, include_input=False):
        name = "_".join(str(part) for part in fault["loc"]).upper() or "SETTINGS"
        yield f"{name}: {fault['msg'].removeprefix('Value error, ')}"
