"""The least that gRPC can cost: bare servers, in processes of their own.

`python -m bench.floor echo` gives back what it gets, `python -m bench.floor compute <ms>` after
computing for so long, and `python -m bench.floor http <echo port>` is a bare Starlette route in
front of the first, as little as a gateway can be. Each prints its port when it listens and ends
when its standard input does.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import grpc
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bench.datasets import ROOT
from encoders.requests import MODEL_MS, QUEUE_MS

SERVICE: Final = "bench.Echo"
METHOD: Final = f"/{SERVICE}/Echo"
LOOPBACK: Final = "127.0.0.1"
# Hashed once to learn how fast this machine hashes; the GIL is free meanwhile.
PROBE_BYTES: Final = 4 * 1024 * 1024

Serve = Callable[[bytes, Any], Awaitable[bytes]]


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
def computing(model_ms: float) -> Iterator[str]:
    """A bare grpc.aio server that computes for about `model_ms` before it echoes: its target."""
    with _process("compute", f"{model_ms:.3f}") as (_, port):
        yield f"{LOOPBACK}:{port}"


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

    async def echo(request: bytes, _: Any) -> bytes:
        return request

    await _serve(echo)


async def serve_computing(model_ms: float) -> None:
    """The same after native work without the GIL in a thread of its own, as a model's is.

    It says in the trailing metadata what the work took, as the workers do.
    """
    content = bytes(max(1, round(PROBE_BYTES * model_ms / _hashing_ms(bytes(PROBE_BYTES)))))
    with ThreadPoolExecutor(1) as thread:

        async def compute(request: bytes, context: Any) -> bytes:
            loop = asyncio.get_running_loop()
            took_ms = await loop.run_in_executor(thread, _hashing_ms, content)
            context.set_trailing_metadata(((MODEL_MS, f"{took_ms:.3f}"), (QUEUE_MS, "0")))
            return request

        await _serve(compute)


def _hashing_ms(content: bytes) -> float:
    """How long it takes to hash it once."""
    started_s = time.perf_counter()
    hashlib.sha256(content).digest()
    return (time.perf_counter() - started_s) * 1000


async def _serve(serve: Serve) -> None:
    """One method, until standard input ends."""
    # Handlers without (de)serialisers take and give bytes.
    handler = grpc.method_handlers_generic_handler(
        SERVICE, {METHOD.rpartition("/")[2]: grpc.unary_unary_rpc_method_handler(serve)}
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
    """`echo`, `compute <ms>`, or `http <port of echo>`."""
    match arguments:
        case ["echo"]:
            uvloop.run(serve_echo())
        case ["compute", model_ms]:
            uvloop.run(serve_computing(float(model_ms)))
        case ["http", echo_port]:
            uvloop.run(serve_http(int(echo_port)))
        case _:
            sys.exit(main.__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
