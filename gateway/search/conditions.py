"""Filters on metadata as conditions on stored payloads."""

from __future__ import annotations

import re
from typing import Final

from gateway.search import wire
from gateway.search.types import Equals, Filter

METADATA: Final = "metadata"
_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]+")
# Integers up to this size are exact as 64-bit floats.
_EXACT: Final = 2**53


def selection(condition: Filter | None, *more: wire.Condition) -> wire.Selection:
    """The points whose metadata pass `condition` and that meet `more` besides."""
    given = () if condition is None else condition.must
    return wire.Selection((*more, *(_condition(equals) for equals in given)))


def metadata_path(key: str) -> str:
    """The payload path of a metadata field, its levels quoted where the store needs it."""
    levels = (part if _PLAIN.fullmatch(part) else f'"{part}"' for part in key.split("."))
    return ".".join((METADATA, *levels))


def _condition(equals: Equals) -> wire.Condition:
    path, value = metadata_path(equals.key), equals.value
    # In JSON 3 and 3.0 are one number, and the store compares floats by range alone.
    if isinstance(value, float) or (
        isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _EXACT
    ):
        return wire.Between(path, float(value), float(value))
    return wire.Match(path, value)
