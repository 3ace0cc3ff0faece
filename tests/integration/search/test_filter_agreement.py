"""Filters mean the same to both adapters, with and without indexes, and to a plain evaluator."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.store import DIMENSION, a_plan, a_stamp, open_points, soon

from gateway.search import ids, wire
from gateway.search.conditions import selection
from gateway.search.filters import parse_filter
from gateway.search.points import Points
from runtime.errors import Reason, ServiceError

INDEXES: dict[str, wire.IndexKind] = {
    "word": "keyword",
    "whole": "integer",
    "real": "float",
    "flag": "bool",
    "time": "datetime",
    "deep.ключ": "float",
}
VECTOR = wire.pack([1.0] * DIMENSION)
FIELDS = [*INDEXES, "free", "deep.free"]

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
EAST, WEST = timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-8))
# Every way to write a time that is documented, and what it means.
TIMES = {
    "2024-05-01T12:00:00Z": NOON,
    "2024-05-01t12:00:00.000z": NOON,
    NOON.astimezone(EAST).isoformat(): NOON,
    NOON.astimezone(WEST).isoformat(" "): NOON,
    "2024-05-01T14:00:00+02:00": NOON,
    "2024-05-01T12:00:00": NOON,
    "2024-05-01T12:00:00.123456789Z": NOON + timedelta(microseconds=123456),
    "2024-05-01": NOON - timedelta(hours=12),
    "2024-05-02": NOON + timedelta(hours=12),
    "1900-02-28T23:59:59+14:00": datetime(1900, 2, 28, 9, 59, 59, tzinfo=UTC),
    "9999-12-31T23:59:59.999999Z": datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
}
UUID = "550e8400-e29b-41d4-a716-446655440000"
TEXTS = st.sampled_from([*TIMES, "", "red", "Red", "3", "true", "soon", "2024-13-01", UUID])
NUMBERS = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([-2.5, -0.0, 0.0, 2.5, 3.0, 1e300, 5e-324]),
    # Microseconds of NOON, which an index of times holds for it, and the limits of integers.
    st.sampled_from([1_714_564_800_000_000, 2**53, 2**53 + 1, -(2**63), 2**63 - 1, 2.0**63]),
)
SCALARS = st.one_of(TEXTS, NUMBERS, st.booleans())
VALUES = st.one_of(
    SCALARS,
    st.lists(st.one_of(SCALARS, st.none(), st.lists(SCALARS, max_size=1)), max_size=3),
    st.sampled_from([None, {}, {"word": "red"}]),
)
METADATA = st.fixed_dictionaries(
    {},
    optional={
        **{field: VALUES for field in FIELDS if "." not in field},
        "deep": st.one_of(
            VALUES, st.fixed_dictionaries({}, optional={"ключ": VALUES, "free": VALUES})
        ),
    },
)


def ranges(bounds: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    lower = st.fixed_dictionaries({}, optional={"gte": bounds}) | st.fixed_dictionaries(
        {"gt": bounds}
    )
    upper = st.fixed_dictionaries({}, optional={"lte": bounds}) | st.fixed_dictionaries(
        {"lt": bounds}
    )
    return st.builds(lambda low, high: low | high, lower, upper).filter(bool)


EXACT = NUMBERS.filter(lambda number: int(float(number)) == int(number) and number < 2**63)
CONDITIONS = st.one_of(
    SCALARS,
    st.fixed_dictionaries({"any": st.lists(SCALARS, max_size=3)}),
    ranges(EXACT),
    ranges(st.sampled_from([*TIMES])),
)
KEYS = st.sampled_from([*FIELDS, "missing", "deep", "word.deeper"])
FILTERS = st.recursive(
    st.dictionaries(KEYS, CONDITIONS, min_size=1, max_size=2),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"not": inner}),
        st.fixed_dictionaries({"or": st.lists(inner, min_size=1, max_size=3)}),
        st.builds(lambda one, two: one | {"not": two}, inner, inner),
    ),
    max_leaves=4,
)


def passes(metadata: dict[str, Any], raw: dict[str, Any]) -> bool:
    """What docs/api.md says about filters, in Python."""
    return all(
        not passes(metadata, value)
        if key == "not"
        else any(passes(metadata, one) for one in value)
        if key == "or"
        else any(meets(one, value) for one in values_of(metadata, key))
        for key, value in raw.items()
    )


def values_of(metadata: Any, key: str) -> list[Any]:
    for level in key.split("."):
        if not isinstance(metadata, dict) or level not in metadata:
            return []
        metadata = metadata[level]
    return metadata if isinstance(metadata, list) else [metadata]


def meets(value: Any, condition: Any) -> bool:
    if not isinstance(condition, dict):
        return equal(value, condition)
    if "any" in condition:
        return any(equal(value, one) for one in condition["any"])
    bounds = {name: TIMES.get(bound, bound) for name, bound in condition.items()}
    if any(isinstance(bound, datetime) for bound in bounds.values()):
        value = TIMES.get(value) if isinstance(value, str) else None
    else:
        value = float(value) if is_number(value) else None
    return value is not None and all(
        {"gt": value > bound, "gte": value >= bound, "lt": value < bound, "lte": value <= bound}[
            name
        ]
        for name, bound in bounds.items()
    )


def equal(value: Any, wanted: Any) -> bool:
    if is_number(value) and is_number(wanted):
        if isinstance(wanted, int) and abs(wanted) > 2**53:
            return isinstance(value, int) and value == wanted
        return float(value) == float(wanted)
    return type(value) is type(wanted) and value == wanted


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def unfit(raw: dict[str, Any]) -> bool:
    """Whether a range is of another type than the index of its field."""
    for key, value in raw.items():
        if key in ("not", "or"):
            if any(unfit(one) for one in (value if key == "or" else [value])):
                return True
            continue
        wanted = value.get("any", [*value.values()]) if isinstance(value, dict) else [value]
        kind = INDEXES.get(key)
        if kind == "datetime" and any(
            # Larger integers are matched, not ranged over.
            is_number(one)
            and not (isinstance(one, int) and abs(one) > 2**53 and is_equality(value))
            for one in wanted
        ):
            return True
        is_range = isinstance(value, dict) and "any" not in value
        if kind in ("integer", "float") and is_range and isinstance(wanted[0], str):
            return True
    return False


def is_equality(condition: Any) -> bool:
    return not isinstance(condition, dict) or "any" in condition


class Stores:
    """The same documents in the embedded store, indexed and not, and behind the client."""

    def __init__(self, runner: asyncio.Runner, embedded: Points, memory: Points) -> None:
        self._runner = runner
        self._documents: list[dict[str, Any]] = []
        self._places = [(embedded, "indexed"), (embedded, "plain"), (memory, "plain")]
        runner.run(self._create())

    async def _create(self) -> None:
        for points, collection in self._places:
            indexes = INDEXES if collection == "indexed" else {}
            await points.create(collection, a_plan(collection, **indexes).config(), soon())
            await points.swap(collection, a_stamp(), None, soon())

    def write(self, documents: list[dict[str, Any]]) -> None:
        """These documents, and no others."""
        self._documents = documents
        self._runner.run(self._write())

    def check(self, raw: dict[str, Any]) -> None:
        """What each store finds is what the evaluator does, or refused where the index cannot."""
        self._runner.run(self._check(raw))

    async def _write(self) -> None:
        ours = wire.Or((wire.Match("kind", "record"), wire.Match("kind", "chunk")))
        for points, collection in self._places:
            await points.delete(collection, wire.Selection((ours,)), soon())
            await points.upsert(collection, list(points_of(self._documents)), soon())

    async def _check(self, raw: dict[str, Any]) -> None:
        expected = {str(at) for at, one in enumerate(self._documents) if passes(one, raw)}
        parsed = parse_filter(raw)
        for points, collection in self._places:
            indexes = INDEXES if collection == "indexed" else {}
            if indexes and unfit(raw):
                with pytest.raises(ServiceError) as caught:
                    selection(parsed, indexes=indexes)
                assert caught.value.reason is Reason.INVALID_ARGUMENT
                continue
            chosen = selection(parsed, indexes=indexes)
            where = wire.Selection((wire.Match("kind", "record"), *chosen.must))
            part = await points.scroll(collection, where, 100, soon(), fields=["document_id"])
            listed = {point.payload["document_id"] for point in part.points}
            question = wire.Query(VECTOR, None, chosen, 100, 100, 10)
            found = await points.query(collection, question, soon())
            searched = {passage.document_id for passage in found.passages}
            assert (listed, searched) == (expected, expected), (type(points), collection)
            assert await points.count(collection, where, soon()) == len(expected)


def points_of(documents: list[dict[str, Any]]) -> Iterator[wire.Point]:
    for at, metadata in enumerate(documents):
        common = {"document_id": str(at), "version": "1", "metadata": metadata}
        yield wire.Point(ids.record_id(str(at)), {**common, "kind": "record", "seq": 1})
        chunk = {**common, "kind": "chunk", "ordinal": 0, "text": "x"}
        yield wire.Point(ids.chunk_id(str(at), "1", 0), chunk, VECTOR)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    with asyncio.Runner() as runner:
        opened = [
            open_points(adapter, tmp_path_factory.mktemp(adapter))
            for adapter in ("embedded", "memory")
        ]
        (embedded, _), (memory, _) = [runner.run(one.__aenter__()) for one in opened]
        try:
            yield Stores(runner, embedded, memory)
        finally:
            for one in opened:
                runner.run(one.__aexit__(None, None, None))


@given(
    documents=st.lists(METADATA, min_size=4, max_size=8),
    filters=st.lists(FILTERS, min_size=4, max_size=4),
)
@settings(
    derandomize=True,
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_every_store_finds_what_the_evaluator_finds(
    stores: Stores, documents: list[dict[str, Any]], filters: list[dict[str, Any]]
) -> None:
    stores.write(documents)
    for raw in filters:
        stores.check(raw)


VALUES_BY_KIND: list[Any] = [
    *(None, True, False, 0, 1, 2, 2.5, 3, 3.0, -0.0, 2**53, 2**53 + 1, 2**60, 2.0**60),
    *("red", "3", "soon", UUID, *TIMES, 1_714_564_800_000_000, [], [2.5, "red"], [[3]]),
]


@pytest.mark.parametrize("field", FIELDS)
def test_an_index_of_one_kind_and_values_of_every_kind(stores: Stores, field: str) -> None:
    first, _, rest = field.partition(".")
    documents = [{first: {rest: value} if rest else value} for value in VALUES_BY_KIND]
    conditions: list[Any] = [
        *(True, False, 0, 3, 3.0, 2.5, 2**53 + 1, 2**60, 2.0**60, "red", "3", "soon", UUID),
        *("2024-05-01T12:00:00Z", 1_714_564_800_000_000, {"any": ["red", UUID]}),
        *({"any": [3, True, "red", 2**60]}, {"any": []}, {"gte": 2.5}, {"gt": 2.5, "lt": 4}),
        *({"any": [7, 3.0, -2, 2.5, 0, "red", 2**60, 2.0**60, 1e300, True]}, {"any": [9, 8, 7, 4]}),
        *({"gt": 3, "lt": 3}, {"gte": 5, "lt": 3}, {"gte": 1, "lte": 2**60}),
        *({"gte": "2024-05-01T14:00:00+02:00", "lte": "2024-05-01T12:00:00Z"},),
        *({"gt": "2024-05-01"}, {"lt": "2024-05-01"}, {"gte": "2024-05-02", "lt": "2024-05-01"}),
    ]
    stores.write(documents)
    for condition in conditions:
        stores.check({field: condition})
        stores.check({"not": {field: condition}})
