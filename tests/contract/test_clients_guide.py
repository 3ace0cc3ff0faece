"""docs/clients.md: its commands, its answers and its Python client, against the real workers."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf import json_format, message_factory
from support.deployables import ROOT, WORKERS
from support.encoder_workers import embedder, generator, reranker
from support.reflection import Reflected

from runtime.channel import MAX_MESSAGE_BYTES, channel_options
from runtime.errors import ERROR_DOMAIN, Reason, ServiceError, status_code

pytestmark = pytest.mark.asyncio(loop_scope="module")

GUIDE = (ROOT / "docs" / "clients.md").read_text()
# Language and text of every block, in order.
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", GUIDE, re.DOTALL)
PORTS = {worker.grpc_port: name for name, worker in WORKERS.items()}


def commands() -> list[tuple[list[str], list[Any]]]:
    """Every grpcurl command's arguments, with the answers shown after the block it is in."""
    found: list[tuple[list[str], list[Any]]] = []
    for language, text in BLOCKS:
        if language == "sh":
            lines = text.replace("\\\n", " ")
            words = re.split(r"^grpcurl ", lines, flags=re.MULTILINE)[1:]
            found += [(shlex.split(one), []) for one in words]
        elif language == "json" and found and "loadBalancingConfig" not in text:
            found[-1][1].append(json.loads(text))
        elif not language and found and found[-1][0][-1] == "list":
            found[-1][1].extend(text.split())
    return found


COMMANDS = commands()
CALLS = [(words, shown) for words, shown in COMMANDS if "/" in words[-1]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def targets() -> AsyncIterator[dict[str, str]]:
    """The three workers as the guide has them: name → address."""
    async with AsyncExitStack() as stack:
        found = {}
        for name, start in (
            ("embedder", embedder),
            ("reranker", reranker),
            ("generator", generator),
        ):
            running, _ = await stack.enter_async_context(start())
            await running.ready()
            found[name] = running.target
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reflected(targets: dict[str, str]) -> AsyncIterator[dict[str, Reflected]]:
    """A client of each that knows nothing but its address."""
    async with AsyncExitStack() as stack:
        yield {
            name: Reflected(await stack.enter_async_context(grpc.aio.insecure_channel(target)))
            for name, target in targets.items()
        }


def worker_of(words: list[str]) -> str:
    (port,) = [int(word.split(":")[1]) for word in words if word.startswith("localhost:")]
    return PORTS[port]


def request_of(words: list[str]) -> str:
    return words[words.index("-d") + 1] if "-d" in words else "{}"


async def test_every_worker_and_verb_is_shown() -> None:
    assert {worker_of(words) for words, _ in CALLS} == set(WORKERS)
    assert {words[-1] for words, _ in COMMANDS} >= {"list"}
    methods = {words[-1].rpartition("/")[2] for words, _ in CALLS}
    assert methods == {"GetModel", "EmbedTexts", "ScorePassages", "GenerateAnswer", "Check"}
    assert all(words[0] == "-plaintext" for words, _ in COMMANDS)


async def test_list_and_describe_answer_what_is_shown(reflected: dict[str, Reflected]) -> None:
    for words, shown in COMMANDS:
        client = reflected[worker_of(words)]
        if words[-1] == "list":
            assert shown == await client.services()
        elif words[-2] == "describe":
            file = await client.describe(words[-1])
            names = {m.name for m in file.message_type} | {s.name for s in file.service}
            assert words[-1].rpartition(".")[2] in names


@pytest.mark.parametrize(("words", "shown"), CALLS, ids=lambda value: str(value[-1])[-30:])
async def test_call_answers_what_is_shown(
    reflected: dict[str, Reflected], words: list[str], shown: list[Any]
) -> None:
    client = reflected[worker_of(words)]
    answers = [answer async for answer in client.call(words[-1], request_of(words))]
    assert len(shown) == len(answers)
    for expected, answer in zip(shown, answers, strict=True):
        assert list(expected) == list(answer)
        for key, value in expected.items():
            if key == "vectors":  # cut in the guide, and its last bits are the machine's own
                assert len(answer[key]) == 384 * 4 / 3 * 4
            elif key == "scores":
                assert answer[key] == pytest.approx(value, abs=0.02)
            else:
                assert answer[key] == value


@pytest.mark.parametrize(("words", "_"), CALLS, ids=lambda value: str(value[-1])[-30:])
async def test_an_unknown_field_is_refused_before_it_is_sent(
    reflected: dict[str, Reflected], words: list[str], _: object
) -> None:
    """So the JSON of the guide was really held against the messages."""
    method = await reflected[worker_of(words)].method(words[-1])
    message = message_factory.GetMessageClass(method.input_type)()
    spoilt = json.dumps({**json.loads(request_of(words)), "unknown": 1})
    with pytest.raises(json_format.ParseError):
        json_format.Parse(spoilt, message)


async def run(arguments: list[str], folder: Path, search: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(search)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode().strip()


@pytest.fixture(scope="module")
def source() -> str:
    (only,) = [text for language, text in BLOCKS if language == "python"]
    return str(only)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the guide's command has put the stubs: nothing of ours but `protos/` is there."""
    made = tmp_path_factory.mktemp("guide") / "client"
    (commands,) = [text for language, text in BLOCKS if "grpc_tools.protoc" in text]
    make, protoc = commands.strip().splitlines()
    assert make == "mkdir -p client"
    made.mkdir()
    words = [word.replace("=client", f"={made}") for word in shlex.split(protoc)]
    assert words[:2] == ["python", "-m"]
    await run(words[1:], ROOT, made)
    return made


async def test_python_client_is_as_short_as_it_says(source: str) -> None:
    assert len([line for line in source.splitlines() if line]) == 15
    assert "## Fifteen lines of Python" in GUIDE


async def test_python_client_prints_what_is_shown(
    targets: dict[str, str], folder: Path, source: str
) -> None:
    at = BLOCKS.index(("python", source))
    (folder / "client.py").write_text(source.replace("localhost:50051", targets["embedder"]))
    printed = await run(["client.py"], folder, folder)
    shown = BLOCKS[at + 1][1].strip()
    assert printed.rpartition(" ")[0] == shown.rpartition(" ")[0]
    assert float(printed.split()[-1]) == pytest.approx(float(shown.split()[-1]), abs=0.02)


async def test_python_client_tells_the_reason_of_an_error(
    targets: dict[str, str], folder: Path, source: str
) -> None:
    spoilt = source.replace("localhost:50051", targets["embedder"]).replace('"No null"', '""')
    (folder / "spoilt.py").write_text(spoilt)
    printed = await run(["spoilt.py"], folder, folder)
    assert printed.startswith("INVALID_ARGUMENT INVALID_ARGUMENT {'field': 'texts")


async def test_errors_and_options_are_those_of_the_code() -> None:
    table = GUIDE.split("| Code | Reason |")[1].split("\n\n")[0]
    listed = {
        (reason, code)
        for code, reasons in re.findall(r"^\| ([A-Z_]+) \| ([^|]+) \|", table, re.MULTILINE)
        for reason in re.findall(r"`([A-Z_]+)`", reasons)
    }
    reasons = list(Reason)
    # The rest is raised inside the gateway only.
    cross = reasons[: reasons.index(Reason.DOCUMENT_NOT_FOUND)]
    assert listed == {(r.value, status_code(ServiceError(r, "")).name) for r in cross}
    assert f"`domain` (`{ERROR_DOMAIN}`)" in GUIDE
    options = dict(channel_options(WORKERS["embedder"].service))
    (config,) = [text for language, text in BLOCKS if "loadBalancingConfig" in text]
    assert json.loads(config) == json.loads(options["grpc.service_config"])
    for names, value in re.findall(r"^\| (`grpc\.[^|]+) \| (\d+) \|", GUIDE, re.MULTILINE):
        for name in re.findall(r"`([a-z_.]+)`", names):
            assert options[name] == int(value)
    assert str(MAX_MESSAGE_BYTES) in GUIDE
