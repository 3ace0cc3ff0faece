"""The least that a gateway over gRPC can cost: a bare Starlette route that makes one echo call.

Two processes, as in the system: `python -m bench.floor http <echo port>` and
`python -m bench.floor echo`. Each prints its port when it listens and ends when its
standard input does.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import grpc
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bench.datasets import ROOT

METHOD: Final = "/bench.Echo/Echo"
LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Floor:
    """The two running processes."""

    address: tuple[str, int]
    pids: dict[str, int]


@contextlib.contextmanager
def running() -> Iterator[Floor]:
    """Starts both processes; stops them at the end."""
    with _process("echo") as (echo_pid, echo_port), _process("http", str(echo_port)) as (pid, port):
        yield Floor((LOOPBACK, port), {"floor": pid, "echo": echo_pid})


@contextlib.contextmanager
def _process(*arguments: str) -> Iterator[tuple[int, int]]:
    """Process id and port of one of them."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.floor", *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:  # closes its standard input at the end, and waits for it
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())


async def serve_echo() -> None:
    """A grpc.aio server that gives back the bytes it gets."""

    async def echo(request: bytes, _: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return request

    # Handlers without (de)serialisers take and give bytes.
    service, method = METHOD.strip("/").split("/")
    handler = grpc.method_handlers_generic_handler(
        service, {method: grpc.unary_unary_rpc_method_handler(echo)}
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port(f"{LOOPBACK}:0")
    await server.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


async def serve_http(echo_port: int) -> None:
    """Starlette under uvicorn: one route, one call, no middleware, no log."""
    async with grpc.aio.insecure_channel(f"{LOOPBACK}:{echo_port}") as channel:
        call = channel.unary_unary(METHOD, request_serializer=bytes, response_deserializer=bytes)

        async def echo(request: Request) -> Response:
            return Response(await call(await request.body()), media_type="application/json")

        listener = socket.create_server((LOOPBACK, 0))
        app = Starlette(routes=[Route("/echo", echo, methods=["POST"])])
        config = uvicorn.Config(app, log_level="critical", access_log=False, lifespan="off")
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        print(listener.getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)
        server.should_exit = True
        await serving


def main(arguments: list[str]) -> None:
    """`echo`, or `http <port of echo>`."""
    uvloop.run(serve_echo() if arguments[0] == "echo" else serve_http(int(arguments[1])))


if __name__ == "__main__":
    main(sys.argv[1:])
