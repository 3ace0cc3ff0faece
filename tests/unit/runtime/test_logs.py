"""A log line is one JSON object."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from runtime.logs import configure_logging


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure_logging("INFO", stream)
    yield stream
    logging.captureWarnings(False)
    root.handlers, root.level = handlers, level


def test_a_line_has_the_fixed_fields_and_those_given(stream: io.StringIO) -> None:
    logging.getLogger("some.place").info("it %s", "works", extra={"latency_ms": 1.5, "nested": {}})
    line = json.loads(stream.getvalue())
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "INFO", "target": "some.place", "message": "it works",
        "latency_ms": 1.5, "nested": {},
    }  # fmt: skip


def test_a_newline_in_a_message_stays_inside_the_line(stream: io.StringIO) -> None:
    logging.getLogger("x").warning('two\nlines "quoted"')
    assert len(stream.getvalue().splitlines()) == 1
    assert json.loads(stream.getvalue())["message"] == 'two\nlines "quoted"'


def test_an_exception_is_a_field(stream: io.StringIO) -> None:
    try:
        raise ValueError("why")
    except ValueError:
        logging.getLogger("x").exception("failed")
    assert "ValueError: why" in json.loads(stream.getvalue())["exception"]


def test_less_severe_lines_are_left_out(stream: io.StringIO) -> None:
    logging.getLogger("x").debug("quiet")
    assert stream.getvalue() == ""
