"""A body cut into documents, wherever its pieces begin and end."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.problems import HttpError
from gateway.splitter import MAX_FRAME_BYTES, MAX_STRUCTURE_BYTES, Splitter

# Characters that mean something to JSON, often next to each other.
TEXTS = st.text(st.sampled_from('"\\{}[],: \nxé語\ud83d'), max_size=12)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=12,
)
CUTS = st.lists(st.integers(1, 40), min_size=1, max_size=4)


def split(body: bytes, cuts: list[int], most: int = 1000) -> tuple[bytes, list[bytes]]:
    """The frame and the elements of a body in pieces of these sizes, over and over."""
    splitter = Splitter("documents", most_elements=most, placeholder=b"0")
    elements: list[bytes] = []
    start = turn = 0
    while start < len(body):
        end = start + cuts[turn % len(cuts)]
        elements += splitter.feed(body[start:end])
        start, turn = end, turn + 1
    return splitter.frame, elements


@given(st.lists(VALUES, max_size=5), TEXTS, st.sampled_from([None, 2]), CUTS, st.booleans())
def test_the_elements_are_those_of_the_array(
    values: list[Any], other: str, indent: int | None, cuts: list[int], ascii_: bool
) -> None:
    value = {"before": other, "documents": values, "after": other}
    try:
        body = json.dumps(value, indent=indent, ensure_ascii=ascii_).encode()
    except UnicodeEncodeError:
        return
    frame, elements = split(body, cuts)
    assert [json.loads(element) for element in elements] == values
    assert json.loads(frame) == {
        "before": other,
        "documents": [0] if values else [],
        "after": other,
    }


PIECES = st.sampled_from(
    [*(bytes([byte]) for byte in b',{}[]"\\1 :'), b'{"documents":[', b"]}", b'{"a":1}', b'"a"']
)


@given(st.lists(PIECES, max_size=14).map(b"".join), CUTS)
@example(b'{"documents":[]}', [1])
@example(b'{"documents":[ \n]}', [1])
@example(b'{"documents":[\x0b]}', [3])
@example(b'{"documents":[1,]}', [4])
@example(b'{"documents":["\\\\"]}', [1])
@example(b'{"documents":["\\\\\\"]}', [1])
def test_a_body_is_json_exactly_if_all_of_it_is(body: bytes, cuts: list[int]) -> None:
    try:
        frame, elements = split(body, cuts)
    except HttpError:
        return  # an object, or a second array: not what is looked for
    parts = [frame, *elements]
    assert all(map(is_json, parts)) == is_json(body)


def is_json(body: bytes) -> bool:
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        (b'{"documents":[%s]}' % b",".join([b"1"] * 11), "documents", "length <= 10"),
        (
            b'{"documents":[1,{"text":[%s]}]}' % b",".join([b"1"] * MAX_STRUCTURE_BYTES),
            "documents[1]",
            "outside of strings",
        ),
        (b'{"x":"%s","documents":[]}' % (b"x" * MAX_FRAME_BYTES), "", "beside `documents`"),
        (b'{"documents":[1],"more":[2]}', "", "no array but `documents`"),
        (b'{"documents":[1],"documents":[2]}', "", "but `documents`, once"),
        (b'{"documents":{"text":"x"}}', "", "no object"),
    ],
)
def test_more_than_a_body_may_hold_is_refused(body: bytes, field: str, words: str) -> None:
    with pytest.raises(HttpError) as caught:
        split(body, [64], most=10)
    (fault,) = caught.value.errors
    assert fault.field == field
    assert words in fault.message


def test_white_space_and_strings_are_not_counted() -> None:
    document = b'{"text": "%s",%s "id": "x"}' % (b"[," * 100_000, b" " * 100_000)
    assert split(b'{"documents":[%s]}' % document, [65_536])[1] == [document]
