"""Filters as callers write them."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.search.conditions import metadata_path, selection
from gateway.search.types import Equals, Filter, parse_filter
from gateway.search.wire import Between, Match
from runtime.errors import Reason, ServiceError


def test_equality_of_several_keys() -> None:
    raw = {"team": "red", "year": 2024, "price": 1.5, "draft": False, "a.b": "c"}
    assert parse_filter(raw) == Filter(tuple(Equals(key, value) for key, value in raw.items()))


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        ({"team": {"any": ["a"]}}, "filter.team"),
        ({"year": {"gte": 1}}, "filter.year"),
        ({"not": {"a": 1}}, "filter.not"),
        ({"or": [{"a": 1}]}, "filter.or"),
        ({"a": None}, "filter.a"),
        ({"a": [1]}, "filter.a"),
        ({"a": 2**63}, "filter.a"),
        ({"a": float("inf")}, "filter.a"),
        ({"a": float("nan")}, "filter.a"),
        ({"": 1}, "filter."),
        ({"a[0]": 1}, "filter.a[0]"),
        ({'a"b': 1}, 'filter.a"b'),
        ({"a..b": 1}, "filter.a..b"),
        ({f"k{at}": 1 for at in range(33)}, "filter"),
    ],
)
def test_what_is_not_built_or_sane_is_refused(raw: dict[str, Any], field: str) -> None:
    with pytest.raises(ServiceError) as caught:
        parse_filter(raw)
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert caught.value.metadata == {"field": field}


def test_numbers_are_ranges_and_the_rest_is_matched() -> None:
    chosen = selection(
        parse_filter({"f": 1.5, "i": 3, "big": 2**53 + 1, "b": True, "s": "x"}), Match("kind", "k")
    )
    assert chosen.must == (
        Match("kind", "k"),
        Between("metadata.f", 1.5, 1.5),
        Between("metadata.i", 3.0, 3.0),
        Match("metadata.big", 2**53 + 1),
        Match("metadata.b", True),
        Match("metadata.s", "x"),
    )


def test_levels_are_quoted_where_the_store_needs_it() -> None:
    assert metadata_path("a.b-c.d_1") == "metadata.a.b-c.d_1"
    assert metadata_path("ключ.b") == 'metadata."ключ".b'
