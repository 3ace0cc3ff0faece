"""Conditions of `wire` in the words of Qdrant's client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from qdrant_client import models

from gateway.search import wire

# Of the numbers, an index of integers would hold the whole ones alone.
_INDEXES: Final = {
    "keyword": models.PayloadSchemaType.KEYWORD,
    "integer": models.PayloadSchemaType.FLOAT,
    "float": models.PayloadSchemaType.FLOAT,
    "bool": models.PayloadSchemaType.BOOL,
    "datetime": models.PayloadSchemaType.DATETIME,
}


def index_changes(
    present: Mapping[str, models.PayloadIndexInfo], wanted: Mapping[str, wire.IndexKind]
) -> tuple[list[str], dict[str, models.PayloadSchemaType]]:
    """The fields whose index is to go, because it is of another kind or not wanted, then those
    to make."""
    kinds = {field: _INDEXES[kind] for field, kind in wanted.items()}
    obsolete = [field for field, index in present.items() if kinds.get(field) != index.data_type]
    missing = {
        field: kind for field, kind in kinds.items() if field not in present or field in obsolete
    }
    return obsolete, missing


def filter_of(selection: wire.Selection) -> models.Filter | None:
    """None where everything is selected."""
    must: list[Any] = [_condition(one) for one in selection.must]
    if selection.ids is not None:
        must.append(models.HasIdCondition(has_id=list(selection.ids)))
    without: list[Any] = []
    if selection.without:
        without.append(models.HasIdCondition(has_id=list(selection.without)))
    if not must and not without:
        return None
    return models.Filter(must=must or None, must_not=without or None)


def _condition(condition: wire.Condition) -> Any:
    match condition:
        case wire.Not(inner):
            return models.Filter(must_not=[_condition(inner)])
        case wire.And(inners):
            return models.Filter(must=[_condition(inner) for inner in inners])
        case wire.Or(()):
            return models.HasIdCondition(has_id=[])  # an empty `should` lets everything pass
        case wire.Or(inners):
            return models.Filter(should=[_condition(inner) for inner in inners])
        case _:
            return _field(condition)


def _field(condition: wire.FieldCondition) -> models.FieldCondition:
    match condition:
        case wire.Match(key, value):
            return models.FieldCondition(key=key, match=models.MatchValue(value=value))
        case wire.AnyOf(key, values):
            return models.FieldCondition(key=key, match=models.MatchAny(any=list(values)))
        case wire.Between(key, gte, lte, gt, lt):
            numbers = models.Range(gte=gte, lte=lte, gt=gt, lt=lt)
            return models.FieldCondition(key=key, range=numbers)
        case wire.Times(key, gte, lte, gt, lt):
            times = {"gte": gte, "lte": lte, "gt": gt, "lt": lt}
            return models.FieldCondition(key=key, range=models.DatetimeRange.model_validate(times))
