"""Is the process in this container ready? Run inside the images as their HEALTHCHECK.

    python -m deploy.healthcheck http                            the gateway
    python -m deploy.healthcheck rag.embedder.v1.EmbedderService  a worker, by its health name

The images hold no curl and no grpc_health_probe; what they hold suffices.
Ports come from the same variables that the processes read.
"""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

TIMEOUT_S: Final = 3.0
# `http_proxy` is for the outside world; loopback is reached directly.
_DIRECT: Final = (("grpc.enable_http_proxy", 0),)


def gateway_ready(port: int) -> bool:
    """Whether `GET /health/ready` answers 200 on this port of loopback."""
    url = f"http://127.0.0.1:{port}/health/ready"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=TIMEOUT_S) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def worker_serves(port: int, service: str) -> bool:
    """Whether the worker on this port of loopback says SERVING for `service`."""
    with grpc.insecure_channel(f"127.0.0.1:{port}", _DIRECT) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=TIMEOUT_S)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def main(arguments: list[str]) -> int:
    """0 ready, 1 not, 2 wrong use."""
    if len(arguments) != 1:
        print("usage: python -m deploy.healthcheck http|<health name>", file=sys.stderr)
        return 2
    if arguments[0] == "http":
        return 0 if gateway_ready(int(os.environ.get("SERVER_PORT") or 8080)) else 1
    return 0 if worker_serves(int(os.environ.get("GRPC_PORT") or 50051), arguments[0]) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
