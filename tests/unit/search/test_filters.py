"""Filters as callers write them: read, refused by name, and turned into conditions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.search import filters, wire
from gateway.search.conditions import metadata_path, selection
from gateway.search.filters import (
    AnyOf,
    Equals,
    Filter,
    Not,
    NumberRange,
    Or,
    TimeRange,
    parse_filter,
    parse_time,
)
from runtime.errors import Reason, ServiceError

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def test_equality_of_several_keys() -> None:
    raw: dict[str, Any] = {"team": "red", "year": 2024, "price": 1.5, "draft": False, "a.b": "c"}
    assert parse_filter(raw) == Filter(tuple(Equals(key, value) for key, value in raw.items()))
    assert parse_filter({}) == Filter()


def test_every_kind_of_condition() -> None:
    raw = {
        "team": {"any": ["red", 3, True]},
        "year": {"gte": 2020, "lt": 2024.5},
        "published": {"gt": "2024-05-01T14:00:00+02:00"},
        "not": {"draft": True, "tags": "old"},
        "or": [{"a": 1}, {"b": 2, "not": {"c": 3}}],
    }
    assert parse_filter(raw) == Filter(
        (
            AnyOf("team", ("red", 3, True)),
            NumberRange("year", gte=2020.0, lt=2024.5),
            TimeRange("published", gt=NOON),
            Not(Filter((Equals("draft", True), Equals("tags", "old")))),
            Or(
                (
                    Filter((Equals("a", 1),)),
                    Filter((Equals("b", 2), Not(Filter((Equals("c", 3),))))),
                )
            ),
        )
    )


def nested(levels: int) -> dict[str, Any]:
    raw: dict[str, Any] = {"a": 1}
    for _ in range(levels - 1):
        raw = {"not": raw}
    return raw


def test_the_limits_are_reached() -> None:
    parse_filter(nested(filters.MOST_LEVELS))
    parse_filter({f"k{at}": 1 for at in range(filters.MOST_CONDITIONS)})
    parse_filter({"a": {"any": ["x"] * filters.MOST_VALUES}, "b": "x" * filters.MOST_CHARACTERS})
    parse_filter(
        {
            "a": {"any": [*range(filters.MOST_CONDITIONS - 1)]},
        }
    )
    parse_filter({"k" * filters.MOST_KEY_CHARACTERS: -(2**63)})
    parse_filter({"a": {"gte": -(2**53), "lte": 2**60}})
    assert parse_filter({"a": {"any": []}}) == Filter((AnyOf("a", ()),))


@pytest.mark.parametrize(
    ("raw", "field", "words"),
    [
        ({"a": None}, "filter.a", "got null"),
        ({"a": [1]}, "filter.a", "got an array"),
        ({"a": 2**63}, "filter.a", "64 bits"),
        ({"a": float("inf")}, "filter.a", "finite"),
        ({"a": float("nan")}, "filter.a", "finite"),
        ({"a": "x" * 4097}, "filter.a", "at most 4096 characters"),
        ({"": 1}, "filter.", "letters, digits"),
        ({"a[0]": 1}, "filter.a[0]", "letters, digits"),
        ({'a"b': 1}, 'filter.a"b', "letters, digits"),
        ({"a..b": 1}, "filter.a..b", "letters, digits"),
        ({"k" * 257: 1}, "filter." + "k" * 64, "at most 256"),
        ({"a": {}}, "filter.a", "`any`, `gt`"),
        ({"a": {"eq": 1}}, "filter.a.eq", "`any`, `gt`"),
        ({"a": {"not": 1}}, "filter.a.not", "goes around the field"),
        ({"a": {"any": "x"}}, "filter.a.any", "at most 1024 values"),
        ({"a": {"any": ["x"] * 1025}}, "filter.a.any", "at most 1024 values"),
        ({"a": {"any": ["x", None]}}, "filter.a.any[1]", "got null"),
        ({"a": {"any": [*range(33)]}}, "filter.a.any[31]", "at most 32 conditions"),
        ({"a": {"any": ["x"], "gte": 1}}, "filter.a", "`any` alone"),
        ({"a": {"gt": 1, "gte": 1}}, "filter.a.gt", "not both"),
        ({"a": {"lt": 1, "lte": 1}}, "filter.a.lt", "not both"),
        ({"a": {"gte": 1, "lt": "2024-05-01"}}, "filter.a", "one of each"),
        ({"a": {"gte": True}}, "filter.a.gte", "got a boolean"),
        ({"a": {"gte": None}}, "filter.a.gte", "got null"),
        ({"a": {"gte": "yesterday"}}, "filter.a.gte", "RFC 3339"),
        ({"a": {"gte": "2024-02-30"}}, "filter.a.gte", "RFC 3339"),
        ({"a": {"lt": 2**53 + 1}}, "filter.a.lt", "2^53"),
        ({"a": {"lt": 10**400}}, "filter.a.lt", "2^53"),
        ({"a": {"lt": float("nan")}}, "filter.a.lt", "finite"),
        ({"not": {}}, "filter.not", "at least one"),
        ({"not": [{"a": 1}]}, "filter.not", "an object"),
        ({"or": []}, "filter.or", "at least one"),
        ({"or": {"a": 1}}, "filter.or", "an array"),
        ({"or": [{"a": 1}, {}]}, "filter.or[1]", "at least one"),
        ({"or": [{"a": 1}, {"year": {"gte": []}}]}, "filter.or[1].year.gte", "got an array"),
        ({f"k{at}": 1 for at in range(33)}, "filter.k32", "at most 32 conditions"),
        (nested(9), "filter" + ".not" * 8, "at most 8 levels"),
    ],
)
def test_what_is_not_sane_is_refused_by_its_place(
    raw: dict[str, Any], field: str, words: str
) -> None:
    with pytest.raises(ServiceError) as caught:
        parse_filter(raw)
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert caught.value.metadata == {"field": field}
    assert words in caught.value.message


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["", "x", "2024-05-01"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["not", "or", "any", "gt", "gte", "lt", "lte", "a", "b.c", ""]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["not", "or", "a", "b.c"]), JSON, max_size=3))
def test_any_object_is_a_filter_or_refused_by_its_place(raw: dict[str, Any]) -> None:
    refusal: ServiceError | None = None
    try:
        assert len(selection(parse_filter(raw)).must) == len(raw)
    except ServiceError as error:
        refusal = error
    if refusal is not None:
        assert refusal.reason is Reason.INVALID_ARGUMENT
        assert refusal.metadata["field"].startswith("filter.")


@pytest.mark.parametrize(
    "text",
    [
        "2024-05-01T12:00:00Z",
        "2024-05-01t12:00:00z",
        "2024-05-01 12:00:00.000000000+00:00",
        "2024-05-01T12:00:00",
        "2024-05-01T23:30:00+11:30",
        "2024-04-30T22:00:00.0000009-14:00",
    ],
)
def test_times_are_instants(text: str) -> None:
    assert parse_time(text) == NOON


def test_a_date_is_its_first_moment() -> None:
    assert parse_time("2024-05-01") == datetime(2024, 5, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "", "2024", "2024-05", "20240501", "2024-W18-3", "2024-05-01T12", "2024-05-01T12:00",
        "2024-05-01T12:00:00+1", "2024-05-01T24:00:00Z", "2024-05-01T12:00:60Z",
        "2024-05-01T12:00:00Z ", "0001-01-01T00:00:00+10:00", "9999-12-31T23:00:00-10:00",
        "٢٠٢٤-05-01",
    ],
)  # fmt: skip
def test_what_is_no_time(text: str) -> None:
    assert parse_time(text) is None


def test_numbers_are_ranges_and_the_rest_is_matched() -> None:
    chosen = selection(
        parse_filter({"f": 1.5, "i": 3, "big": 2**53 + 1, "b": True, "s": "x"}),
        wire.Match("kind", "k"),
    )
    assert chosen.must == (
        wire.Match("kind", "k"),
        wire.Between("metadata.f", 1.5, 1.5),
        wire.Between("metadata.i", 3.0, 3.0),
        wire.Match("metadata.big", 2**53 + 1),
        wire.Match("metadata.b", True),
        wire.Match("metadata.s", "x"),
    )


def test_of_any_the_strings_are_looked_up_together() -> None:
    def alternatives(*values: object) -> wire.Condition:
        return selection(parse_filter({"a": {"any": [*values]}})).must[0]

    assert alternatives("x", "y", "x") == wire.AnyOf("metadata.a", ("x", "y"))
    assert alternatives(2) == wire.Between("metadata.a", 2.0, 2.0)
    assert alternatives() == wire.Or(())
    assert alternatives(1, "x", True, 1.0) == wire.Or(
        (
            wire.AnyOf("metadata.a", ("x",)),
            wire.Between("metadata.a", 1.0, 1.0),
            wire.Match("metadata.a", True),
        )
    )


def test_ranges_not_and_or() -> None:
    raw = {
        "t": {"gte": "2024-05-01T14:00:00.5+02:00", "lt": "2024-05-02"},
        "n": {"gt": 1, "lte": 2},
        "not": {"a": "x", "b": "y"},
        "or": [{"a": "x"}, {"b": "y"}],
    }
    a, b = wire.Match("metadata.a", "x"), wire.Match("metadata.b", "y")
    assert selection(parse_filter(raw)).must == (
        wire.Times(
            "metadata.t",
            gte="2024-05-01T12:00:00.500000+00:00",
            lt="2024-05-02T00:00:00.000000+00:00",
        ),
        wire.Between("metadata.n", gt=1.0, lte=2.0),
        wire.Not(wire.And((a, b))),
        wire.Or((wire.And((a,)), wire.And((b,)))),
    )


def test_levels_are_quoted_where_the_store_needs_it() -> None:
    assert metadata_path("a.b-c.d_1") == "metadata.a.b-c.d_1"
    assert metadata_path("ключ.b") == 'metadata."ключ".b'


def test_of_many_numbers_few_are_compared_with_a_value() -> None:
    numbers = [*range(0, 93, 3)]
    (condition,) = selection(parse_filter({"n": {"any": numbers}})).must
    compared = 0

    def passes(one: wire.Condition, value: float) -> bool:
        nonlocal compared
        match one:
            case wire.And(inners):
                return all(passes(inner, value) for inner in inners)
            case wire.Or(inners):
                return any(passes(inner, value) for inner in inners)
            case wire.Between(_, float(low), float(high)):
                compared += 1
                return low <= value <= high
        raise AssertionError(one)

    for value in range(-2, 96):
        compared = 0
        assert passes(condition, value) == (value in numbers)
        assert compared <= 11
