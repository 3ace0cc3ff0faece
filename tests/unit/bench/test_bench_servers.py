"""Other projects' servers: how they are started and called, and what the table says."""

from __future__ import annotations

import base64
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest

from bench import foreign
from bench.embedding_client import Order, client
from bench.foreign import Recipe, Unavailable
from bench.http_embedding import decode, over_http
from bench.recipes import RECIPES
from bench.servers import Row, _report

# Speaks OpenAI's form: a text's vector is its length and 1. Refuses the text "no".
SERVER = """
import base64, json, struct, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        texts = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["input"]
        rows = [base64.b64encode(struct.pack("<2f", len(text), 1)).decode() for text in texts]
        body = json.dumps({"data": [{"embedding": row} for row in rows]}).encode()
        self.send_response(400 if texts == ["no"] else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """Of a server that is installed."""
    monkeypatch.setenv("BENCH_SERVERS_DIR", str(tmp_path))
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "complete").touch()
    (tmp_path / "fake" / "server.py").write_text(SERVER)
    return Recipe("a fake", "fake", (), (sys.executable, "server.py", "{port}"), path="/embed")


def test_bulk_work_queries_and_both_at_once(recipe: Recipe, tmp_path: Path) -> None:
    with foreign.running(recipe, tmp_path) as server:
        connect = partial(over_http, server.address, recipe.path, "model")
        texts = ["x" * length for length in range(100)]

        call = client(connect)
        done = call(Order(texts=texts, queries=["a", "b", "c"]))
        both = call(Order(texts[:40], ["a"], seconds=0.3))

    assert done.vectors.tolist() == [[length, 1] for length in range(100)]
    assert (done.texts, len(done.latencies_s)) == (100, 3)
    assert both.texts >= 40
    assert both.seconds >= 0.3
    assert 1 <= len(both.latencies_s) <= 6
    assert server.start_s > 0
    assert not psutil.pid_exists(server.pid)


def test_a_refusal_is_no_figure(recipe: Recipe, tmp_path: Path) -> None:
    with foreign.running(recipe, tmp_path) as server:
        connect = partial(over_http, server.address, recipe.path, "model")
        with pytest.raises(foreign.Refused, match="400"):
            client(connect)(Order(queries=["no"]))


def test_a_server_that_ends_says_why(recipe: Recipe, tmp_path: Path) -> None:
    broken = replace(recipe, command=(sys.executable, "-c", "raise SystemExit('no such model')"))
    with (
        pytest.raises(Unavailable, match="a fake did not start: no such model"),
        foreign.running(broken, tmp_path),
    ):
        pass


def test_what_cannot_be_prepared_is_not_taken_for_installed(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign.venv, "create", lambda place, **_: place.mkdir())
    hopeless = replace(recipe, environment="other", requirements=("no-such",))
    with pytest.raises(Unavailable):  # its environment has no Python
        foreign.install(hopeless, tmp_path)
    assert not (tmp_path / "other" / "complete").exists()
    assert foreign.install(recipe, tmp_path) == tmp_path / "fake"


def test_vectors_are_read_from_base64() -> None:
    vectors = np.array([[1.5, -2.0], [0.0, 3.25]], np.float32)
    rows = [{"embedding": base64.b64encode(row.tobytes()).decode()} for row in vectors]
    assert (decode(msgspec.json.encode({"data": rows})).vectors == vectors).all()


def test_we_are_first_only_where_nobody_is_better() -> None:
    ours = Row(100, 5, 9, 20, 80, 300, 2, 1e-5)
    other = Row(50, 6, 8, 40, 30, 900, 8, 0.0)
    worse = Row(10, 60, 80, 400, 3, 800, 4, 0.0)

    report = _report({"ours": ours, "other": other, "worse": worse}, 100.0, {"lost": "a\nno wheel"})

    assert [target.met for target in report.targets] == [True, True, False, True, True, True, True]
    assert [target.value for target in report.targets][:3] == [2, pytest.approx(5 / 6), 9 / 8]
    table, missing, places = report.tables
    assert [row[3:] for row in places.rows][:3] == [
        ("other", "yes"), ("other", "yes"), ("other", "no")
    ]  # fmt: skip
    assert table.rows[0][:4] == ("ours", "100", "10,000", "5.00")
    assert missing.rows == [("lost", "no wheel")]
    assert _report({"ours": ours}, 100.0, {}).targets == []


def test_recipes_can_be_filled_in() -> None:
    for recipe in RECIPES:
        command = foreign._filled(recipe.command, Path("/v"), Path("/m"), 4711)
        assert any("4711" in part for part in command)
        assert not any(
            "{" in part
            for part in (*command, *foreign._filled(recipe.prepare, Path("/v"), Path("/m")))
        )
        assert all("==" in requirement for requirement in recipe.requirements)
