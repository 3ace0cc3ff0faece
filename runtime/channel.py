"""The one way to open a gRPC channel to a worker."""

from __future__ import annotations

from typing import Any, Final

import grpc
import msgspec

from runtime.interceptors import StreamClientInterceptor, UnaryClientInterceptor
from runtime.telemetry import Tracing

MAX_MESSAGE_BYTES: Final = 32 * 1024 * 1024
# The server allows a ping each 10 s (runtime/server.py); less often is polite, and 20 s
# finds a peer that vanished without a word within half a minute.
KEEPALIVE_TIME_MS: Final = 20_000
KEEPALIVE_TIMEOUT_MS: Final = 5_000


def _service_config(service_name: str) -> str:
    """round_robin over the replicas whose health says SERVING; what a replica that is not there,
    or is stopping, did not take (UNAVAILABLE, CANCELLED) is tried once more.

    No `timeout` here: in a service config it fails at once or far too early
    (measured on grpcio 1.85); deadlines are given per call.
    """
    config = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "healthCheckConfig": {"serviceName": service_name},
        "methodConfig": [
            {
                "name": [{"service": service_name}],
                "retryPolicy": {
                    "maxAttempts": 2,
                    "initialBackoff": "0.02s",
                    "maxBackoff": "0.1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
                },
            }
        ],
    }
    return msgspec.json.encode(config).decode()


def channel_options(service_name: str) -> list[tuple[str, Any]]:
    """Options for a client of `service_name`; any gRPC client does well to set the same."""
    return [
        ("grpc.service_config", _service_config(service_name)),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        # A call is kept until it is answered, to be sent again; gRPC's own 256 KiB would make
        # larger ones fail with the replica that had them.
        ("grpc.per_rpc_retry_buffer_size", MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", KEEPALIVE_TIME_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        # A worker that was killed is back within seconds, and is found within one more.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        # A name is resolved again when a connection ends, and then at most so often: gRPC's own
        # 30 s would hide a new replica for as long.
        ("grpc.dns_min_time_between_resolutions_ms", 1_000),
        # Workers are reached directly; `http_proxy` is for the outside world.
        ("grpc.enable_http_proxy", 0),
        # Two channels to one address are two clients, each with its own connections.
        ("grpc.use_local_subchannel_pool", 1),
    ]


def open_channel(target: str, service_name: str, tracing: Tracing) -> grpc.aio.Channel:
    """A channel to all replicas behind `target`, whose calls raise `ServiceError`.

    target: `host:port`, or `dns:///name:port` where the name has an address per
        replica (a headless Service).
    service_name: the gRPC service called, e.g. "rag.embedder.v1.EmbedderService".
    """
    interceptors: Any = [UnaryClientInterceptor(tracing), StreamClientInterceptor(tracing)]
    return grpc.aio.insecure_channel(
        target, options=channel_options(service_name), interceptors=interceptors
    )
