"""Conditions of `wire` in the words of the embedded engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import qdrant_edge as edge

from gateway.search import wire

# Of the numbers, an index of integers would hold the whole ones alone.
_INDEXES: Final = {
    "keyword": edge.PayloadSchemaType.Keyword,
    "integer": edge.PayloadSchemaType.Float,
    "float": edge.PayloadSchemaType.Float,
    "bool": edge.PayloadSchemaType.Bool,
    "datetime": edge.PayloadSchemaType.Datetime,
}


def index_changes(
    present: Mapping[str, edge.PayloadIndexInfo], wanted: Mapping[str, wire.IndexKind]
) -> Iterator[edge.UpdateOperation]:
    """What makes the indexes those wanted, of those kinds, and no others."""
    kept = {
        field
        for field, index in present.items()
        if field in wanted and index.data_type == _INDEXES[wanted[field]]
    }
    for field in present:
        if field not in kept:
            yield edge.UpdateOperation.delete_field_index(field)
    for field, kind in wanted.items():
        if field not in kept:
            yield edge.UpdateOperation.create_field_index(field, _INDEXES[kind])


def filter_of(selection: wire.Selection) -> edge.Filter | None:
    """None where everything is selected."""
    must: list[Any] = [_condition(one) for one in selection.must]
    if selection.ids is not None:
        must.append(edge.HasIdCondition(set(selection.ids)))
    without: list[Any] = []
    if selection.without:
        without.append(edge.HasIdCondition(set(selection.without)))
    if not must and not without:
        return None
    return edge.Filter(must=must or None, must_not=without or None)


def _condition(condition: wire.Condition) -> Any:
    match condition:
        case wire.Not(inner):
            return edge.Filter(must_not=[_condition(inner)])
        case wire.And(inners):
            return edge.Filter(must=[_condition(inner) for inner in inners])
        case wire.Or(()):
            return edge.HasIdCondition(set())  # an empty `should` would let everything pass
        case wire.Or(inners):
            return edge.Filter(should=[_condition(inner) for inner in inners])
        case _:
            return _field(condition)


def _field(condition: wire.FieldCondition) -> edge.FieldCondition:
    match condition:
        case wire.Match(key, value):
            return edge.FieldCondition(key, match=edge.MatchValue(_value(value)))
        case wire.AnyOf(key, values):
            return edge.FieldCondition(key, match=edge.MatchAny(list(values)))
        case wire.Between(key, gte, lte, gt, lt):
            return edge.FieldCondition(key, range=edge.RangeFloat(gte=gte, gt=gt, lte=lte, lt=lt))
        case wire.Times(key, gte, lte, gt, lt):
            times = edge.RangeDateTime(gte=gte, gt=gt, lte=lte, lt=lt)
            return edge.FieldCondition(key, range=times)


def _value(value: str | int | bool) -> Any:
    if not isinstance(value, bool):
        return value
    # The engine's binding takes Python's booleans for integers, which match none, but knows
    # NumPy's. Imported by the first such filter: it would double the process's start.
    import numpy as np

    return np.bool_(value)
