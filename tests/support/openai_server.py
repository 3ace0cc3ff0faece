"""An OpenAI-compatible server on a free port of loopback, told by the test how to answer.

It speaks the wire protocol of `POST /v1/chat/completions` (JSON and server-sent
events), so that what is tested is the real client over a real socket.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route


@dataclass(frozen=True)
class Reply:
    """How one request is answered.

    pieces: the text deltas.
    stall_after: after so many pieces nothing more comes until the client leaves; 0 stalls
        before the first.
    stall_headers: not even the response's head is sent.
    raw: sent as they are after the pieces, in place of the regular end.
    cut: the stream ends after the pieces without finish reason and [DONE].
    """

    pieces: tuple[str, ...] = ()
    finish_reason: str = "stop"
    usage: tuple[int, int] | None = (11, 7)
    status: int = 200
    error: str = "upstream secret: host db-7.internal, key sk-live-123"
    stall_after: int | None = None
    stall_headers: bool = False
    raw: tuple[str, ...] = ()
    cut: bool = False
    refusal: str | None = None


Respond = Callable[[dict[str, Any]], Reply]


@dataclass
class OpenAIServer:
    """What the test says and sees."""

    base_url: str
    respond: Respond
    requests: list[dict[str, Any]] = field(default_factory=list)
    authorizations: list[str] = field(default_factory=list)
    # Set when a client left in the middle of an answer.
    disconnected: asyncio.Event = field(default_factory=asyncio.Event)
    # Set when a request has come, and when the last piece before a stall is out.
    requested: asyncio.Event = field(default_factory=asyncio.Event)

    def reply(self, *pieces: str, **how: Any) -> None:
        """From now on every request is answered so."""
        reply = Reply(pieces, **how)
        self.respond = lambda body: reply


def prompt_of(body: dict[str, Any]) -> str:
    """All the text of a request's messages."""
    contents = (message["content"] for message in body["messages"])
    return "\n".join(c if isinstance(c, str) else json.dumps(c) for c in contents)


@asynccontextmanager
async def openai_server() -> AsyncIterator[OpenAIServer]:
    """Runs one in this event loop for the length of the `with`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        state = OpenAIServer(f"http://127.0.0.1:{port}/v1", lambda body: Reply(("Hello.",)))
        routes = [Route("/v1/chat/completions", _endpoint(state), methods=["POST"])]
        config = uvicorn.Config(
            Starlette(routes=routes), log_config=None, lifespan="off", timeout_graceful_shutdown=1
        )
        server = _Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await server.listening.wait()
            yield state
        finally:
            server.should_exit = True
            await serving


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # they are pytest's


def _endpoint(state: OpenAIServer) -> Callable[[Request], Any]:
    async def complete(request: Request) -> Response:
        body = await request.json()
        state.requests.append(body)
        state.authorizations.append(request.headers.get("authorization", ""))
        state.requested.set()
        reply = state.respond(body)
        if reply.stall_headers:
            await _until_gone(request, state)
            return Response(status_code=499)
        if reply.status != 200:
            error = {"message": reply.error, "type": "error", "code": None}
            return JSONResponse({"error": error}, reply.status)
        if not body.get("stream"):
            return JSONResponse(_whole(body, reply))
        return StreamingResponse(_events(body, reply, state), media_type="text/event-stream")

    return complete


async def _until_gone(request: Request, state: OpenAIServer) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue
    state.disconnected.set()


async def _events(body: dict[str, Any], reply: Reply, state: OpenAIServer) -> AsyncIterator[str]:
    try:
        yield _event(body, {"role": "assistant", "content": ""})
        for sent, piece in enumerate(reply.pieces):
            if sent == reply.stall_after:
                break
            yield _event(body, {"content": piece})
            await asyncio.sleep(0)
        if reply.stall_after is not None:
            await asyncio.get_running_loop().create_future()
        for raw in reply.raw:
            yield raw
        if reply.raw or reply.cut:
            return
        if reply.refusal is not None:
            yield _event(body, {"refusal": reply.refusal})
        yield _event(body, {}, reply.finish_reason)
        wants_usage = (body.get("stream_options") or {}).get("include_usage")
        if reply.usage is not None and wants_usage:
            yield _data({**_head(body), "choices": [], "usage": _usage(reply.usage)})
        yield "data: [DONE]\n\n"
    except asyncio.CancelledError:
        state.disconnected.set()
        raise


def _event(body: dict[str, Any], delta: dict[str, Any], finish: str | None = None) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return _data({**_head(body), "choices": [choice]})


def _head(body: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": body["model"],
    }


def _data(chunk: dict[str, Any]) -> str:
    return f"data: {json.dumps(chunk)}\n\n"


def _usage(usage: tuple[int, int]) -> dict[str, int]:
    prompt, completion = usage
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def _whole(body: dict[str, Any], reply: Reply) -> dict[str, Any]:
    message = {"role": "assistant", "content": "".join(reply.pieces), "refusal": reply.refusal}
    choice = {"index": 0, "message": message, "finish_reason": reply.finish_reason}
    whole = {**_head(body), "object": "chat.completion", "choices": [choice]}
    return whole | ({"usage": _usage(reply.usage)} if reply.usage else {})
