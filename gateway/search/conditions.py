"""Filters on metadata as conditions on stored payloads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final

from gateway.search import wire
from gateway.search.filters import (
    AnyOf,
    Condition,
    Equals,
    FieldCondition,
    Filter,
    Not,
    NumberRange,
    Or,
    Scalar,
    TimeRange,
    refused,
)

METADATA: Final = "metadata"
NO_INDEXES: Final[Mapping[str, wire.IndexKind]] = MappingProxyType({})
_NUMBERS: Final = ("integer", "float")
_UUID_AWARE: Final = (*_NUMBERS, "datetime")
_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]+")
# Integers up to this size are exact as 64-bit floats.
_EXACT: Final = 2**53
# Fewer numbers than this are compared one by one.
LEAST_HALVED: Final = 4


def selection(
    given: Filter | None,
    *more: wire.Condition,
    indexes: Mapping[str, wire.IndexKind] = NO_INDEXES,
) -> wire.Selection:
    """The points whose metadata pass `given` and that meet `more` besides.

    indexes: metadata field → kind of its index.
    Raises ServiceError INVALID_ARGUMENT where an index cannot answer: an index of times a
    condition on numbers, or one of numbers a condition on times.
    """
    return wire.Selection((*more, *(() if given is None else _all(given, indexes))))


def metadata_path(key: str) -> str:
    """The payload path of a metadata field, its levels quoted where the store needs it."""
    levels = (part if _PLAIN.fullmatch(part) else f'"{part}"' for part in key.split("."))
    return ".".join((METADATA, *levels))


def _all(given: Filter, indexes: Mapping[str, wire.IndexKind]) -> tuple[wire.Condition, ...]:
    return tuple(_condition(condition, indexes) for condition in given.must)


def _condition(condition: Condition, indexes: Mapping[str, wire.IndexKind]) -> wire.Condition:
    match condition:
        case Not(inner):
            return wire.Not(wire.And(_all(inner, indexes)))
        case Or(filters):
            return wire.Or(tuple(wire.And(_all(one, indexes)) for one in filters))
    alternatives = [
        _fitted(one, indexes.get(condition.key), condition.place) for one in _fields(condition)
    ]
    if isinstance(condition, AnyOf):
        alternatives = _halved(alternatives)
    return alternatives[0] if len(alternatives) == 1 else wire.Or(tuple(alternatives))


def _halved(alternatives: list[wire.Condition]) -> list[wire.Condition]:
    """The same with its numbers in a tree of ranges, so that few are compared with each value.

    Without an index a comparison reads the payload anew, 5 µs: of 31 numbers at most 11 are
    looked at, of most passages the first range alone.
    """
    numbers = [one for one in alternatives if isinstance(one, wire.Between)]
    if len(numbers) < LEAST_HALVED:
        return alternatives
    numbers.sort(key=lambda one: one.gte or 0.0)
    return [*(one for one in alternatives if not isinstance(one, wire.Between)), _tree(numbers)]


def _tree(numbers: list[wire.Between]) -> wire.Condition:
    """One of `numbers`, ascending, each a range of that number alone."""
    if len(numbers) == 1:
        return numbers[0]
    half = len(numbers) // 2
    whole = wire.Between(numbers[0].key, numbers[0].gte, numbers[-1].lte)
    return wire.And((whole, wire.Or((_tree(numbers[:half]), _tree(numbers[half:])))))


def _fields(condition: FieldCondition) -> list[wire.FieldCondition]:
    """The alternatives that `condition` is made of."""
    path = metadata_path(condition.key)
    match condition:
        case Equals(_, value):
            return [_equals(path, value)]
        case AnyOf(_, values):
            texts = dict.fromkeys(value for value in values if isinstance(value, str))
            others = (_equals(path, value) for value in values if not isinstance(value, str))
            return [*([wire.AnyOf(path, tuple(texts))] if texts else []), *dict.fromkeys(others)]
        case NumberRange(_, gt, gte, lt, lte):
            return [wire.Between(path, gte, lte, gt, lt)]
        case TimeRange(_, after, since, before, until):
            return [wire.Times(path, _utc(since), _utc(until), _utc(after), _utc(before))]


def _equals(path: str, value: Scalar) -> wire.FieldCondition:
    # In JSON 3 and 3.0 are one number, and the store compares floats by range alone.
    if isinstance(value, float) or (
        isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _EXACT
    ):
        return wire.Between(path, float(value), float(value))
    return wire.Match(path, value)


def _fitted(
    condition: wire.FieldCondition, kind: wire.IndexKind | None, place: str
) -> wire.Condition:
    """The same condition, so written that an index of this kind cannot make it wrong.

    Where a field has an index, Qdrant asks it even for values it does not hold (found with
    qdrant-edge 0.9). It takes the numbers of a range for microseconds in an index of times,
    and times for numbers in one of numbers, so those are refused. It takes strings that look
    like UUIDs for numbers as well, but only to find points, not to check them: under two
    negations no index is asked for points, and every point is checked.
    """
    if kind == "datetime" and isinstance(condition, wire.Between):
        raise refused(place, "Expected times: FILTER_FIELDS names this field as `datetime`")
    if kind in _NUMBERS and isinstance(condition, wire.Times):
        raise refused(place, f"Expected numbers: FILTER_FIELDS names this field as `{kind}`")
    is_text = isinstance(condition, wire.Match | wire.AnyOf)
    return wire.Not(wire.Not(condition)) if is_text and kind in _UUID_AWARE else condition


def _utc(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat(timespec="microseconds")
