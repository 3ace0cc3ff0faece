"""Bytes to typed requests. The fast path finds that all is well, the slow one finds every fault."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import islice
from typing import Any, Final, Generic, Literal, NoReturn, TypeVar, get_args, get_origin
from urllib.parse import parse_qsl

import msgspec

from gateway.problems import Fault, HttpError, HttpReason, invalid
from gateway.schemas import in_words

# A body of nothing but faults must not come back many times its size.
MAX_FAULTS: Final = 100
MAX_NAME_CHARACTERS: Final = 64
# A larger body is told its first fault alone: finding all takes ten times as long as decoding.
MAX_EXPLAINED_BYTES: Final = 1 << 20
# `$.documents[3].text` at the end of msgspec's messages.
_PLACE: Final = re.compile(r" - at `(?:key in )?\$?\.?(.*)`$")

# What Python's parser refuses of numbers, where it stands outside of strings: other constants than
# JSON has, and integers of more digits than it reads.
_BAD_NUMBER: Final = re.compile(
    r'"[^"\\]*(?:\\.[^"\\]*)*"|(NaN|-?Infinity|(?<![.\d])\d{4301,})', re.DOTALL
)

T = TypeVar("T", bound=msgspec.Struct)


class BodyDecoder(Generic[T]):
    """Decodes JSON bodies of one type."""

    def __init__(self, cls: type[T]) -> None:
        self._cls = cls
        self._decoder = msgspec.json.Decoder(cls)

    def decode(self, body: bytes, place: str = "") -> T:
        """The request in `body`; or the part of one at `place`, such as `documents[3]`.

        Raises HttpError: MALFORMED_JSON, or INVALID_ARGUMENT with every fault by its field.
        """
        try:
            value = self._decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            if len(body) > MAX_EXPLAINED_BYTES:
                raise _first_fault(error, place) from error
            _explain(body, self._cls, error, place)
        if faults := _own_faults(value, place):
            raise invalid(faults)
        return value


def decode_parameters(query_string: bytes, cls: type[T]) -> T:
    """The query string as `cls`. Raises HttpError INVALID_ARGUMENT with every fault."""
    try:
        pairs = parse_qsl(query_string.decode("ascii"), keep_blank_values=True, errors="strict")
    except ValueError as error:
        raise invalid([Fault("", "Expected a query string in UTF-8")]) from error
    values = dict(pairs)
    if len(values) != len(pairs):
        times = Counter(name for name, _ in pairs)
        again = [name for name in times if times[name] > 1]
        raise invalid(
            [
                Fault(name[:MAX_NAME_CHARACTERS], f"Expected once, got {times[name]} times")
                for name in again[:MAX_FAULTS]
            ]
        )
    try:
        return msgspec.convert(values, cls, strict=False)
    except msgspec.ValidationError as error:
        faults = list(islice(_struct_faults(values, cls, "", strict=False), MAX_FAULTS))
        raise invalid(faults or [_fault_of(error, "")]) from error


def _first_fault(error: Exception, place: str) -> HttpError:
    """What the fast path found, in its words."""
    if isinstance(error, msgspec.ValidationError):
        return invalid([_fault_of(error, place)])
    if isinstance(error, UnicodeDecodeError):
        detail = f"Byte {error.start} is not UTF-8."
    elif isinstance(error, RecursionError):
        detail = "Objects and arrays are nested too deep."
    else:
        detail = f"{error}."
    return _malformed(detail, place)


def _malformed(detail: str, place: str) -> HttpError:
    return HttpError(HttpReason.MALFORMED_JSON, f"{place}: {detail}" if place else detail)


def _explain(body: bytes, cls: type[msgspec.Struct], error: Exception, place: str) -> NoReturn:
    """Raises what was wrong with a body that the fast path refused."""
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        detail = "Objects and arrays are nested too deep."
    except UnicodeDecodeError as bad:
        detail = f"Byte {bad.start} is not UTF-8."
    except UnicodeEncodeError:  # escaped, it is JSON to the letter, but no text
        detail = "A string holds half of a surrogate pair."
    except json.JSONDecodeError as bad:
        detail = f"{bad.msg} at line {bad.lineno}, column {bad.colno}."
    except ValueError:  # NaN, or a number of more digits than Python reads
        detail = f"A number cannot be read{_at_bad_number(body.decode())}."
    else:
        if isinstance(error, msgspec.ValidationError):
            faults = list(islice(_struct_faults(value, cls, place, strict=True), MAX_FAULTS))
            raise invalid(faults or [_fault_of(error, place)]) from error
        detail = "The body cannot be read."
    raise _malformed(detail, place) from error


def _at_bad_number(body: str) -> str:
    for match in _BAD_NUMBER.finditer(body):
        if match[1] is not None:
            line = body.count("\n", 0, match.start()) + 1
            column = match.start() - body.rfind("\n", 0, match.start())
            return f" at line {line}, column {column}"
    return ""


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and Infinity are Python's, not JSON's


def _struct_faults(
    value: Any, cls: type[msgspec.Struct], path: str, *, strict: bool
) -> Iterator[Fault]:
    """Every field of `value` that does not fit `cls`, then what the struct itself finds."""
    if not isinstance(value, dict):
        yield Fault(path, in_words(f"Expected `object`, got `{_json_name(value)}`"))
        return
    fields = msgspec.structs.fields(cls)
    found = False
    for fault in _field_faults(value, fields, path, strict=strict):
        found = True
        yield fault
    if not found:
        yield from _own_faults(msgspec.convert(value, cls, strict=strict), path, nested=False)


def _field_faults(
    value: dict[str, Any],
    fields: Iterable[msgspec.structs.FieldInfo],
    path: str,
    *,
    strict: bool,
) -> Iterator[Fault]:
    prefix = f"{path}." if path else ""
    known = {field.name for field in fields}
    for name in value:
        if name not in known:
            yield Fault(prefix + name[:MAX_NAME_CHARACTERS], "Unknown field")
    for field in fields:
        place = prefix + field.name
        if field.name not in value:
            if field.required:
                yield Fault(place, "Required")
            continue
        try:
            msgspec.convert(value[field.name], field.type, strict=strict)
        except msgspec.ValidationError as error:
            fault = _fault_of(error, place, field.type)
            item = _item_struct(field.type)
            if item is None or fault.field == place:
                # In a query string everything is a string: nothing new to who wrote it.
                told = fault.message if strict else fault.message.removesuffix(", got a string")
                yield Fault(place, told)
                continue
        else:
            item = _item_struct(field.type)
        if item is not None:
            for position, entry in enumerate(value[field.name]):
                yield from _struct_faults(entry, item, f"{place}[{position}]", strict=strict)


def _own_faults(value: Any, path: str, *, nested: bool = True) -> list[Fault]:
    """What a decoded struct and the structs in its lists find wrong with themselves."""
    faults: list[Fault] = []
    if nested:
        kind: Any = type(value)
        for name in _lists_of_structs(kind):
            for position, entry in enumerate(getattr(value, name)):
                faults += _own_faults(entry, f"{name}[{position}]")
    find = getattr(value, "faults", None)
    if find is not None:
        faults += find(path)
    return faults[:MAX_FAULTS]


@cache
def _lists_of_structs(cls: Any) -> tuple[str, ...]:
    fields = msgspec.structs.fields(cls)
    return tuple(field.name for field in fields if _item_struct(field.type) is not None)


def _item_struct(kind: Any) -> type[msgspec.Struct] | None:
    """The struct in `list[Struct]`, annotated or not."""
    for inner in (kind, *get_args(kind)):
        for item in get_args(inner):
            if isinstance(item, type) and issubclass(item, msgspec.Struct):
                return item
    return None


def _choices(kind: Any) -> tuple[Any, ...]:
    """The values of the Literal in `kind`, annotated or not."""
    parts = get_args(kind)
    if get_origin(kind) is Literal:
        return parts
    return tuple(choice for part in parts for choice in _choices(part))


def _fault_of(error: msgspec.ValidationError, path: str, kind: Any = None) -> Fault:
    """msgspec's message, with the place where it found the fault. kind: what was to be there."""
    message = in_words(str(error))
    match = _PLACE.search(message)
    if match is None:
        if choices := _choices(kind):
            message = "Expected one of " + ", ".join(f"`{one}`" for one in choices)
        return Fault(path, message)
    inner = match.group(1)
    joined = path + inner if not path or inner.startswith("[") else f"{path}.{inner}"
    return Fault(joined, message[: match.start()])


def _json_name(value: Any) -> str:
    names = {str: "str", bool: "bool", int: "int", float: "float", list: "array"}
    return "null" if value is None else names.get(type(value), "object")
