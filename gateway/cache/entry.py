"""A cached vector and the bytes that Redis keeps of it."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

_VERSION: Final = 1
_FLOAT32: Final = 1
_CUT: Final = 1
# version, dtype, flags, dimension, CRC-32 of key, flags and payload; then the payload itself.
_HEADER: Final = struct.Struct("<BBBxII")


@dataclass(frozen=True, slots=True)
class Entry:
    """vector: float32 [dimension]; cut: the text was longer than the model reads."""

    vector: npt.NDArray[np.float32]
    cut: bool


def encode(key: bytes, entry: Entry) -> bytes:
    """The entry as bytes that say what they are and whose."""
    payload = np.ascontiguousarray(entry.vector, dtype="<f4").tobytes()
    flags = _CUT if entry.cut else 0
    checksum = _checksum(key, flags, payload)
    return _HEADER.pack(_VERSION, _FLOAT32, flags, entry.vector.size, checksum) + payload


def decode(key: bytes, value: bytes | None) -> Entry | None:
    """The entry in `value`; None, a miss, for anything that is not exactly what `encode` wrote."""
    if value is None or len(value) < _HEADER.size:
        return None
    version, kind, flags, dimension, checksum = _HEADER.unpack_from(value)
    payload = value[_HEADER.size :]
    if (
        version != _VERSION
        or kind != _FLOAT32
        or dimension == 0
        or len(payload) != dimension * 4
        or checksum != _checksum(key, flags, payload)
    ):
        return None
    return Entry(np.frombuffer(payload, dtype="<f4"), bool(flags & _CUT))


def _checksum(key: bytes, flags: int, payload: bytes) -> int:
    # The key goes in, so that a value under another's key is a miss as well.
    return zlib.crc32(payload, zlib.crc32(key, flags))
