"""What callers send: the structs that decode requests, check them, and document them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from gateway.problems import Fault

MAX_QUERY_CHARACTERS: Final = 8192
MAX_DOCUMENTS: Final = 1000
MAX_TEXT_CHARACTERS: Final = 2_000_000
MAX_METADATA_BYTES: Final = 16 * 1024
MAX_METADATA_DEPTH: Final = 5

# No trailing anchor: Python's $ lets a final newline through, ECMA's does not.
_NO_CONTROL: Final = r"^(?![\s\S]*[\u0000-\u001f\u007f-\u009f])"
_COLLECTION: Final = r"^[a-z0-9][a-z0-9_-]{0,62}(?![\s\S])"
_CONTROL: Final = re.compile(r"[\u0000-\u001f\u007f-\u009f]")
# What to tell people instead of what msgspec says.
_WORDS: Final = {
    f"Expected `str` matching regex {_NO_CONTROL!r}": "Expected no control characters",
    f"Expected `str` matching regex {_COLLECTION!r}": "Expected 1 to 63 of a-z, 0-9, `_` and `-`, "
    "a letter or digit first",
    "Expected `bool`": "Expected `true` or `false`",
}

# A type in msgspec's messages: `str | null`.
_TYPES: Final = re.compile(r"(?<=Expected )`([a-z]+(?: \| [a-z]+)*)`|(?<=got )`([a-z]+)`")
_JSON_TYPES: Final = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "a boolean",
    "array": "an array",
    "object": "an object",
    "null": "null",
}

Query = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_QUERY_CHARACTERS,
        description="The question, in plain words.",
        examples=["How does Rust ensure memory safety?"],
    ),
]
DocumentId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=256,
        pattern=_NO_CONTROL,
        description="Chosen by the caller; no control characters, may hold `/`; a new one is "
        "neither `.` nor `..`.",
    ),
]
Collection = Annotated[
    str,
    Meta(
        pattern=_COLLECTION,
        description="The collection meant; the default one when left out.",
    ),
]
Mode = Annotated[
    Literal["hybrid", "dense", "sparse"],
    Meta(description="hybrid fuses the ranks of dense (by meaning) and sparse (BM25) search."),
]
Filter = Annotated[
    dict[str, Any],
    Meta(
        description="Conditions on metadata, all of which a document must meet: "
        '`{"field": value}`, `{"field": {"any": [...]}}`, `{"field": {"gte": 1, "lt": 9}}` (`gt`, '
        "`gte`, `lt`, `lte`; numbers or RFC 3339 times), "
        '`{"not": {...}}`, `{"or": [{...}, ...]}`. A dot descends into objects; a list '
        "meets a condition when one of its elements does.",
        examples=[
            {"language": "en"},
            {"year": {"gte": 2020}, "team": {"any": ["docs", "web"]}, "not": {"draft": True}},
        ],
    ),
]

ChunkSize = Annotated[
    int,
    Meta(
        ge=64,
        le=8192,
        description="Characters in a chunk at most; the collection's own when left out.",
    ),
]
Overlap = Annotated[
    int,
    Meta(
        ge=0,
        le=8191,
        description="Characters neighbouring chunks share at most, below `chunk_size`; "
        "the collection's own when left out.",
    ),
]


class SearchRequest(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Find passages."""

    query: Query
    top_k: Annotated[int, Meta(ge=1, le=200, description="Passages wanted.")] = 5
    rerank: Annotated[bool, Meta(description="Whether the reranker refines the order.")] = True
    mode: Mode = "hybrid"
    filter: Filter | None = None
    collection: Collection | None = None

    def faults(self, path: str) -> Iterator[Fault]:
        """What the types alone cannot say."""
        yield from _text_faults(self.query, _join(path, "query"))


class QueryRequest(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Ask a question."""

    query: Query
    top_k: Annotated[int, Meta(ge=1, le=50, description="Passages the answer is made from.")] = 5
    rerank: Annotated[bool, Meta(description="Whether the reranker refines the order.")] = True
    temperature: Annotated[float, Meta(ge=0, le=2, description="Of the language model.")] | None = (
        None
    )
    max_tokens: (
        Annotated[int, Meta(ge=1, le=32_768, description="Longest answer, in tokens.")] | None
    ) = None
    mode: Mode = "hybrid"
    filter: Filter | None = None
    collection: Collection | None = None
    stream: Annotated[bool, Meta(description="Answer as server-sent events.")] = False

    def faults(self, path: str) -> Iterator[Fault]:
        """What the types alone cannot say."""
        yield from _text_faults(self.query, _join(path, "query"))


class DocumentInput(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A document to index. Without an `id` it is UUIDv5 of the text."""

    text: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=MAX_TEXT_CHARACTERS,
            description="Plain text or Markdown; no NUL.",
        ),
    ]
    id: DocumentId | None = None
    metadata: (
        Annotated[
            dict[str, Any],
            Meta(
                description="Kept with the document: up to 16 KiB as JSON, 5 levels deep, no "
                "control characters in names."
            ),
        ]
        | None
    ) = None

    def faults(self, path: str) -> Iterator[Fault]:
        """What the types alone cannot say."""
        yield from _text_faults(self.text, _join(path, "text"))
        if self.id in (".", ".."):
            yield Fault(
                _join(path, "id"),
                "Expected an id other than `.` and `..`: clients resolve these in a URL, so that "
                "no request would reach the document",
            )
        if self.metadata:
            yield from _metadata_faults(self.metadata, _join(path, "metadata"))


class IndexRequest(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Index documents: each is added, replaced, or found unchanged."""

    documents: Annotated[list[DocumentInput], Meta(min_length=1, max_length=MAX_DOCUMENTS)]
    chunk_size: ChunkSize | None = None
    overlap: Overlap | None = None
    collection: Collection | None = None


class IndexParameters(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The query string of POST /index."""

    wait: Annotated[
        bool, Meta(description="false: answer at once with a job that indexes the documents.")
    ] = True


class ReindexRequest(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Rebuild a collection from its documents, with today's model."""

    collection: Collection | None = None
    chunk_size: ChunkSize | None = None
    overlap: Overlap | None = None


class JobsParameters(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The query string of GET /jobs."""

    limit: Annotated[int, Meta(ge=1, le=1000, description="Most jobs to give.")] = 100
    state: (
        Annotated[
            Literal["queued", "running", "succeeded", "failed", "cancelled"],
            Meta(description="Only jobs in this state."),
        ]
        | None
    ) = None


class ListParameters(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The query string of GET /documents."""

    limit: Annotated[int, Meta(ge=1, le=1000, description="Most documents to give.")] = 100
    cursor: (
        Annotated[str, Meta(max_length=1024, description="`next_cursor` of the page before.")]
        | None
    ) = None
    filter: (
        Annotated[str, Meta(max_length=16_384, description="As in /query, written as JSON.")] | None
    ) = None
    collection: Collection | None = None


class DeleteParameters(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The query string of DELETE /documents."""

    filter: Annotated[
        str,
        Meta(
            max_length=16_384,
            description="As in /query, written as JSON; with at least one condition.",
        ),
    ]
    collection: Collection | None = None


class CollectionParameter(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The query string of a route about one document."""

    collection: Collection | None = None


class NoParameters(Struct, forbid_unknown_fields=True, frozen=True):
    """The query string of a route that takes none."""


def in_words(message: str) -> str:
    """msgspec's message, without regular expressions and names of Python's."""
    for told, words in _WORDS.items():
        message = message.replace(told, words)
    return _TYPES.sub(_in_json, message)


def _in_json(match: re.Match[str]) -> str:
    """The types that msgspec names, in words of JSON."""
    names = (match[1] or match[2]).split(" | ")
    return " or ".join(_JSON_TYPES.get(name, f"`{name}`") for name in names)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _text_faults(text: str, path: str) -> Iterator[Fault]:
    if text.isspace():
        yield Fault(path, "Expected more than white space")
    if "\0" in text:
        yield Fault(path, "Expected no NUL character")


def _metadata_faults(metadata: dict[str, Any], path: str) -> Iterator[Fault]:
    # The size first: it bounds what is looked through.
    if (size := len(msgspec.json.encode(metadata))) > MAX_METADATA_BYTES:
        yield Fault(path, f"Expected at most {MAX_METADATA_BYTES} bytes of JSON, got {size}")
    elif (message := _unstorable(metadata, MAX_METADATA_DEPTH)) is not None:
        yield Fault(path, message)


def _unstorable(value: Any, levels: int) -> str | None:
    """Why a value cannot be kept with a document; `{}` is one level."""
    kind = type(value)
    if kind is dict or kind is list:
        if levels == 0:
            return f"Expected at most {MAX_METADATA_DEPTH} levels"
        if kind is dict and any(map(_CONTROL.search, value)):
            return "Expected names without control characters"
        for item in value.values() if kind is dict else value:
            if (message := _unstorable(item, levels - 1)) is not None:
                return message
    elif kind is int and not -(2**63) <= value < 2**63:
        return "Expected integers of at most 64 bits"
    return None
