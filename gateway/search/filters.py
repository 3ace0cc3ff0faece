"""Filters on documents' metadata, as callers write them.

    {"team": "red", "year": {"gte": 2020}, "not": {"draft": true}}

A condition on a field holds when the field's value, or any element of a field that is a list,
meets it. A field that is missing, null or an object meets none. A dot in a key descends into
objects. Numbers are JSON's: 3 is 3.0; true is not 1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, cast

from runtime.errors import Reason, ServiceError

Scalar = str | int | float | bool

# What one filter may cost. Every key, each `not` and `or`, and each number or boolean of an `any`
# is a condition; the strings of an `any` are one, because they are looked up together. Without
# an index each condition reads every passage anew, 2 to 4 µs each, and the embedded store
# answers nobody else meanwhile: 126 numbers took seconds for 20,000 chunks, with an index 2 ms.
MOST_CONDITIONS: Final = 32
MOST_VALUES: Final = 1024
MOST_LEVELS: Final = 8
MOST_CHARACTERS: Final = 4096
MOST_KEY_CHARACTERS: Final = 256
# The store counts in signed 64-bit integers.
INTEGER_LIMIT: Final = 2**63

_RESERVED: Final = frozenset({"not", "or"})
_BOUNDS: Final = ("gt", "gte", "lt", "lte")
# The store reads a key as a path: dots descend, brackets and quotes have meanings of their own.
_KEY: Final = re.compile(r"[\w-]+(\.[\w-]+)*")
_TIME: Final = re.compile(
    r"\d{4}-\d\d-\d\d([Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)?)?", re.ASCII
)
_FIELD_CHARACTERS: Final = 64


@dataclass(frozen=True, slots=True)
class Equals:
    """The metadata field `key` equals `value`. place: where the caller wrote it."""

    key: str
    value: Scalar
    place: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """The metadata field `key` equals one of `values`; of none, it never does."""

    key: str
    values: tuple[Scalar, ...]
    place: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class NumberRange:
    """The metadata field `key` is a number within the bounds; None leaves one open."""

    key: str
    gt: float | None = None
    gte: float | None = None
    lt: float | None = None
    lte: float | None = None
    place: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class TimeRange:
    """The metadata field `key` is a time within the bounds, whatever the offsets from UTC."""

    key: str
    gt: datetime | None = None
    gte: datetime | None = None
    lt: datetime | None = None
    lte: datetime | None = None
    place: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Not:
    """The document does not pass `filter`."""

    filter: Filter


@dataclass(frozen=True, slots=True)
class Or:
    """The document passes one of `filters`, of which there is at least one."""

    filters: tuple[Filter, ...]


FieldCondition = Equals | AnyOf | NumberRange | TimeRange
Condition = FieldCondition | Not | Or


@dataclass(frozen=True, slots=True)
class Filter:
    """A document passes when it meets all of `must`."""

    must: tuple[Condition, ...] = ()


def parse_filter(raw: Mapping[str, object]) -> Filter:
    """Reads the JSON object of a filter; an empty one lets everything pass.

    Raises ServiceError INVALID_ARGUMENT, `field` naming the place (`filter.or[1].year.gte`).
    """
    return _Reader().filter(raw, "filter", MOST_LEVELS) if raw else Filter()


def parse_time(text: str) -> datetime | None:
    """An RFC 3339 time, or a date (its first moment), in UTC; None for anything else.

    Without an offset it is UTC. Parts of a microsecond are cut off.
    """
    if not _TIME.fullmatch(text):
        return None
    try:
        time = datetime.fromisoformat(text.upper())
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):  # no such day, or beyond the years 1 to 9999
        return None


class _Reader:
    """Reads one filter, counting its conditions."""

    def __init__(self) -> None:
        self._conditions = 0

    def filter(self, raw: object, place: str, levels: int) -> Filter:
        if not isinstance(raw, Mapping) or not raw:
            got = "none" if isinstance(raw, Mapping) else _name(raw)
            raise refused(place, f"Expected an object with at least one condition, got {got}")
        if levels == 0:
            raise refused(place, f"Expected at most {MOST_LEVELS} levels of `not` and `or`")
        return Filter(tuple(self._condition(key, raw[key], place, levels) for key in raw))

    def _condition(self, key: str, value: object, place: str, levels: int) -> Condition:
        here = f"{place}.{key[:_FIELD_CHARACTERS]}"
        self._count(here)
        if key == "not":
            return Not(self.filter(value, here, levels - 1))
        if key == "or":
            return self._or(value, here, levels - 1)
        if len(key) > MOST_KEY_CHARACTERS or not _KEY.fullmatch(key):
            raise refused(
                here,
                f"Expected a name of at most {MOST_KEY_CHARACTERS} letters, digits, `_` and `-`, "
                "with `.` between the levels",
            )
        if isinstance(value, Mapping):
            return self._operators(key, value, here)
        return Equals(key, _scalar(value, here), here)

    def _or(self, raw: object, place: str, levels: int) -> Or:
        if not isinstance(raw, list) or not raw:
            raise refused(place, "Expected an array of at least one object")
        return Or(tuple(self.filter(one, f"{place}[{at}]", levels) for at, one in enumerate(raw)))

    def _operators(self, key: str, raw: Mapping[str, object], place: str) -> Condition:
        for name in raw:
            if name != "any" and name not in _BOUNDS:
                hint = "; `not` goes around the field" if name in _RESERVED else ""
                raise refused(
                    f"{place}.{name[:_FIELD_CHARACTERS]}",
                    f"Expected `any`, `gt`, `gte`, `lt` or `lte`{hint}",
                )
        if "any" in raw:
            if len(raw) > 1:
                raise refused(place, "Expected `any` alone; combine conditions with `or`")
            return self._any_of(key, raw["any"], f"{place}.any")
        return _range(key, raw, place)

    def _any_of(self, key: str, raw: object, place: str) -> AnyOf:
        if not isinstance(raw, list) or len(raw) > MOST_VALUES:
            raise refused(place, f"Expected an array of at most {MOST_VALUES} values")
        values: list[Scalar] = []
        for at, one in enumerate(raw):
            values.append(_scalar(one, f"{place}[{at}]"))
            if not isinstance(one, str):
                self._count(f"{place}[{at}]")
        return AnyOf(key, tuple(values), place)

    def _count(self, place: str) -> None:
        self._conditions += 1
        if self._conditions > MOST_CONDITIONS:
            raise refused(place, f"Expected at most {MOST_CONDITIONS} conditions in all")


def _scalar(value: object, place: str) -> Scalar:
    if isinstance(value, str):
        if len(value) > MOST_CHARACTERS:
            raise refused(place, f"Expected at most {MOST_CHARACTERS} characters")
        return value
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        if not -INTEGER_LIMIT <= value < INTEGER_LIMIT:
            raise refused(place, "Expected an integer of at most 64 bits")
        return value
    if isinstance(value, float):
        return _finite(value, place)
    raise refused(place, f"Expected a string, number or boolean, got {_name(value)}")


def _range(key: str, raw: Mapping[str, object], place: str) -> NumberRange | TimeRange:
    if not raw:
        raise refused(place, "Expected `any`, `gt`, `gte`, `lt` or `lte`")
    for strict, inclusive in (("gt", "gte"), ("lt", "lte")):
        if strict in raw and inclusive in raw:
            raise refused(f"{place}.{strict}", f"Expected `{strict}` or `{inclusive}`, not both")
    bounds = {name: _bound(value, f"{place}.{name}") for name, value in raw.items()}
    if len({type(bound) for bound in bounds.values()}) > 1:
        raise refused(place, "Expected two numbers or two times, got one of each")
    # Of one type by now, which mypy cannot see.
    if all(isinstance(bound, float) for bound in bounds.values()):
        return NumberRange(key, place=place, **cast(dict[str, Any], bounds))
    return TimeRange(key, place=place, **cast(dict[str, Any], bounds))


def _bound(value: object, place: str) -> float | datetime:
    if isinstance(value, str):
        if (time := parse_time(value)) is None:
            raise refused(
                place, "Expected a number or an RFC 3339 time such as 2026-05-01T12:00:00Z"
            )
        return time
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refused(place, f"Expected a number or an RFC 3339 time, got {_name(value)}")
    if isinstance(value, float):
        return _finite(value, place)
    # The store compares in 64-bit floats; a bound that moved would be another filter.
    if not -INTEGER_LIMIT <= value < INTEGER_LIMIT or int(float(value)) != value:
        raise refused(place, "Expected an integer that is exact as a 64-bit float (up to 2^53)")
    return float(value)


def _finite(value: float, place: str) -> float:
    if not math.isfinite(value):
        raise refused(place, "Expected a finite number")
    return value


def _name(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, int | float):
        return "a number"
    return "an array" if isinstance(value, list) else "an object"


def refused(place: str, message: str) -> ServiceError:
    """The error of a filter that means nothing, by the place in it."""
    return ServiceError(Reason.INVALID_ARGUMENT, message, field=place)
