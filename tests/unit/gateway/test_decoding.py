"""Whatever a caller sends is a request or a clear refusal, never a crash."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.decoding import MAX_EXPLAINED_BYTES, MAX_FAULTS, BodyDecoder, decode_parameters
from gateway.problems import HttpError, HttpReason, encode, problem
from gateway.schemas import (
    IndexParameters,
    IndexRequest,
    JobsParameters,
    ListParameters,
    QueryRequest,
    SearchRequest,
)
from gateway.text import normalise

DECODERS: dict[type[msgspec.Struct], BodyDecoder[Any]] = {
    cls: BodyDecoder(cls) for cls in (QueryRequest, SearchRequest, IndexRequest)
}
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just("\ud800")
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["query", "top_k", "filter", "documents", "text", "id", "metadata", "overlap", "mode", "x"]
)
REQUESTS = st.recursive(
    JSON,
    lambda inner: st.one_of(
        st.dictionaries(NAMES, inner, max_size=5),
        st.lists(st.dictionaries(NAMES, inner, max_size=3), max_size=3),
    ),
    max_leaves=10,
)


@pytest.mark.parametrize("cls", list(DECODERS))
@given(value=REQUESTS)
def test_any_json_is_a_request_or_a_refusal(cls: type[msgspec.Struct], value: Any) -> None:
    body = json.dumps(value).encode()
    try:
        assert isinstance(DECODERS[cls].decode(body), cls)
    except HttpError as error:
        document, _ = problem(error, "id")
        encode(document)  # whatever was sent, what we answer is UTF-8
        assert document.status in (400, 422)
        assert len(document.errors) <= MAX_FAULTS
        if document.status == 422:
            assert document.errors


@pytest.mark.parametrize("cls", list(DECODERS))
@given(body=st.binary(max_size=60))
def test_any_bytes_are_a_request_or_a_refusal(cls: type[msgspec.Struct], body: bytes) -> None:
    with pytest.raises(HttpError):
        DECODERS[cls].decode(body)


@given(query=st.binary(max_size=60))
def test_any_query_string_is_parameters_or_a_refusal(query: bytes) -> None:
    try:
        assert decode_parameters(query, ListParameters).limit >= 1
    except HttpError as error:
        document, _ = problem(error, "id")
        assert document.reason == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("query", "cls", "faults"),
    [
        (
            b"state=foo",
            JobsParameters,
            {"state": "Expected one of `queued`, `running`, `succeeded`, `failed`, `cancelled`"},
        ),
        (b"wait=maybe", IndexParameters, {"wait": "Expected `true` or `false`"}),
        (b"limit=many&state=", JobsParameters, {"limit": "Expected an integer", "state": None}),
        (b"limit=1&limit=2&state=failed", JobsParameters, {"limit": "Expected once, got 2 times"}),
        (b"x=&y=&x=&y=&x=", JobsParameters, {"x": "Expected once, got 3 times", "y": None}),
        (b"%s=&%s=" % (b"x" * 100, b"x" * 100), JobsParameters, {"x" * 64: None}),
    ],
)
def test_a_parameter_that_is_refused_is_named_with_what_is_allowed(
    query: bytes, cls: type[msgspec.Struct], faults: dict[str, str | None]
) -> None:
    with pytest.raises(HttpError) as caught:
        decode_parameters(query, cls)
    told = {fault.field: fault.message for fault in caught.value.errors}
    assert list(told) == list(faults)
    assert all(message in (None, told[field]) for field, message in faults.items())


@pytest.mark.parametrize(
    ("cls", "body", "faults"),
    [
        (SearchRequest, [], {"": "Expected an object, got an array"}),
        (
            SearchRequest,
            {"query": 1, "top_k": 1.5, "mode": "foo", "rerank": 1, "filter": [], "collection": {}},
            {
                "query": "Expected a string, got an integer",
                "top_k": "Expected an integer, got a number",
                "rerank": "Expected `true` or `false`, got an integer",
                "mode": "Expected one of `hybrid`, `dense`, `sparse`",
                "filter": "Expected an object or null, got an array",
                "collection": "Expected a string or null, got an object",
            },
        ),
        (QueryRequest, {"query": ""}, {"query": "Expected a string of length >= 1"}),
        (
            QueryRequest,
            {"query": "x", "mode": 1},
            {"mode": "Expected one of `hybrid`, `dense`, `sparse`"},
        ),
        (QueryRequest, {"query": "x", "top_k": 0}, {"top_k": "Expected an integer >= 1"}),
        (
            QueryRequest,
            {"query": "x", "temperature": "`str`", "`int`": 1},
            {"`int`": "Unknown field", "temperature": "Expected a number or null, got a string"},
        ),
        (IndexRequest, {"documents": []}, {"documents": "Expected an array of length >= 1"}),
        (
            IndexRequest,
            {"documents": [{"text": None, "id": 3}, True]},
            {
                "documents[0].text": "Expected a string, got null",
                "documents[0].id": "Expected a string or null, got an integer",
                "documents[1]": "Expected an object, got a boolean",
            },
        ),
    ],
)
def test_types_are_told_in_words_of_json(
    cls: type[msgspec.Struct], body: Any, faults: dict[str, str]
) -> None:
    with pytest.raises(HttpError) as caught:
        DECODERS[cls].decode(json.dumps(body).encode())
    assert {fault.field: fault.message for fault in caught.value.errors} == faults


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "Expecting value at line 1, column 1."),
        (b'{\n"query": }', "Expecting value at line 2, column 10."),
        (b'{"query": "\xff"}', "Byte 11 is not UTF-8."),
        (b"[" * 100_000, "Objects and arrays are nested too deep."),
        (b'{"query": "\\udfff"}', "A string holds half of a surrogate pair."),
        (
            b'{"query": "NaN \\" NaN",\n "temperature": NaN}',
            "A number cannot be read at line 2, column 17.",
        ),
        (b'{"query": -Infinity}', "A number cannot be read at line 1, column 11."),
        (
            b'{"query": 0.%s, "top_k": %s}' % (b"1" * 5000, b"1" * 5000),
            "A number cannot be read at line 1, column 5024.",
        ),
        ('{"query": "x"}'.encode("utf-16"), "Byte 0 is not UTF-8."),
    ],
)
def test_what_is_not_json_is_said_where(body: bytes, detail: str) -> None:
    with pytest.raises(HttpError) as caught:
        DECODERS[QueryRequest].decode(body)
    assert caught.value.reason is HttpReason.MALFORMED_JSON
    assert caught.value.detail == detail


_DEEP = b'{"documents": [{"text": "x", "metadata": {"a": ' + b"[" * 100_000


@pytest.mark.parametrize(
    ("body", "reason", "words"),
    [
        (
            b'{"documents": [{"text": 1}, {"text": 2}, %s]}',
            "INVALID_ARGUMENT",
            "[0].text: Expected",
        ),
        (b'{"documents": [%s', "MALFORMED_JSON", "truncated"),
        (b'{"documents": [1;%s', "INVALID_ARGUMENT", "Expected an object, got an integer"),
        (b'{"documents": [{"text": "x"};%s', "MALFORMED_JSON", "JSON is malformed"),
        (b'{"documents": [{"text": "\xff%s"}', "MALFORMED_JSON", "is not UTF-8."),
        (_DEEP + b"%s", "MALFORMED_JSON", "nested too deep"),
    ],
)
def test_a_large_body_is_told_its_first_fault_alone(
    body: bytes, reason: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finding every fault takes a parse of its own, ten times as long."""

    def parse(*_: Any, **__: Any) -> None:
        raise AssertionError("parsed a second time")

    monkeypatch.setattr(json, "loads", parse)
    with pytest.raises(HttpError) as caught:
        DECODERS[IndexRequest].decode(body % (b" " * MAX_EXPLAINED_BYTES))
    document, _ = problem(caught.value, "id")
    assert document.reason == reason
    assert words in document.detail
    assert len(document.errors) == (reason == "INVALID_ARGUMENT")


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"a": "x" * 16_384}, "at most 16384 bytes"),
        ({"a": [[[[[]]]]]}, "at most 5 levels"),
        ({"a": [1, {"b": 2**63}]}, "at most 64 bits"),
        ({"a\nb": 1}, "without control characters"),
        ({"a": {"b": [{"\0": 1}]}}, "without control characters"),
    ],
)
def test_metadata_that_cannot_be_kept_is_refused(metadata: dict[str, Any], words: str) -> None:
    body = json.dumps({"documents": [{"text": "x", "metadata": metadata}]}).encode()
    with pytest.raises(HttpError) as caught:
        DECODERS[IndexRequest].decode(body)
    (fault,) = caught.value.errors
    assert fault.field == "documents[0].metadata"
    assert words in fault.message


def test_metadata_that_can_be_kept_is_taken() -> None:
    metadata = {"a": [[[{}]]], "b": -(2**63), "c": 2**63 - 1, "d": None, "e f": "a\nb", "g": 0.5}
    body = json.dumps({"documents": [{"text": "x", "metadata": metadata}]}).encode()
    assert DECODERS[IndexRequest].decode(body).documents[0].metadata == metadata


def test_metadata_is_not_looked_through_before_its_size_is_known() -> None:
    metadata = {"a": [2**63] * 10_000}
    body = json.dumps({"documents": [{"text": "x", "metadata": metadata}]}).encode()
    with pytest.raises(HttpError) as caught:
        DECODERS[IndexRequest].decode(body)
    assert "bytes of JSON" in caught.value.detail


def test_a_thousand_faults_are_not_a_thousand_lines() -> None:
    body = json.dumps({"documents": [{"text": ""}] * 1000}).encode()
    with pytest.raises(HttpError) as caught:
        DECODERS[IndexRequest].decode(body)
    assert len(caught.value.errors) == MAX_FAULTS


@given(st.text(max_size=40))
def test_normalised_text_is_its_own_normal_form(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert unicodedata.is_normalized("NFC", once)
    assert once == once.strip()
    assert "  " not in once
    assert normalise(f" {text}\n") == once


def test_texts_that_look_alike_are_one() -> None:
    assert normalise("cafe\u0301  au\u00a0lait\n") == "caf\u00e9 au lait"
