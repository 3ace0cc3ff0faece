"""The images' own health check, against a real HTTP server and a real gRPC one."""

from __future__ import annotations

import http.server
import socket
import threading
import urllib.request
from concurrent import futures

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from deploy import healthcheck

SERVICE = "rag.embedder.v1.EmbedderService"


@pytest.fixture(autouse=True, params=[None, "http://127.0.0.1:9"], ids=["direct", "proxy"])
def _proxy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers are given a proxy for the outside world, which knows nothing of loopback."""
    if request.param is not None:
        for name in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, request.param)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        # The opener of `urlopen` is made once a process, with the proxies of that moment.
        monkeypatch.setattr(urllib.request, "_opener", None)


class Gateway(http.server.BaseHTTPRequestHandler):
    """Answers /health/ready with the status the test wants, anything else with 404."""

    ready_status = 200

    def do_GET(self) -> None:
        self.send_response(self.ready_status if self.path == "/health/ready" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Tests are quiet."""


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_gateway(status: int, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gateway, "ready_status", status)
    with http.server.HTTPServer(("127.0.0.1", 0), Gateway) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("SERVER_PORT", str(server.server_address[1]))
        try:
            assert healthcheck.main(["http"]) == code
        finally:
            server.shutdown()
            thread.join()


def test_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    servicer = health.HealthServicer()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    monkeypatch.setenv("GRPC_PORT", str(server.add_insecure_port("127.0.0.1:0")))
    server.start()
    try:
        servicer.set(SERVICE, health_pb2.HealthCheckResponse.NOT_SERVING)
        assert healthcheck.main([SERVICE]) == 1
        servicer.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
        assert healthcheck.main([SERVICE]) == 0
        assert healthcheck.main(["another.Service"]) == 1
    finally:
        server.stop(None).wait()


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        unused_port = server.getsockname()[1]
    monkeypatch.setenv("SERVER_PORT", str(unused_port))
    monkeypatch.setenv("GRPC_PORT", str(unused_port))
    assert healthcheck.main(["http"]) == 1
    assert healthcheck.main([SERVICE]) == 1


def test_wrong_use() -> None:
    assert healthcheck.main([]) == 2
