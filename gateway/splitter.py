"""The elements of a large JSON array, found without decoding anything.

Decoding a body of 30 MiB in one call holds the interpreter for as long as it takes: 0.2 s of
text, seconds of small values, which besides become a GiB of objects. Here the body is looked
through piece by piece, by array operations whose time does not depend on what is in it
(0.5 ms for 64 KiB), and cut at the commas between the elements.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from gateway.problems import Fault, invalid

# Of one element, what is not within a string and no white space. The metadata of a document
# may have 16 KiB as compact JSON, which a number such as 1.0000 exceeds as it was written.
MAX_STRUCTURE_BYTES: Final = 64 * 1024
# Of the object around the array.
MAX_FRAME_BYTES: Final = 64 * 1024
_QUOTE: Final = ord('"')
_BACKSLASH: Final = ord("\\")
_COMMA: Final = ord(",")
_SPACE: Final = ord(" ")
_WHITE: Final = b" \t\n\r"
# `{` and `[` differ in this bit alone, and so do `}` and `]`.
_BRACKET_BIT: Final = 0x20
_OPEN: Final = ord("{")
_CLOSE: Final = ord("}")
# Brackets around an element: the object's and the array's.
_WITHIN: Final = 2

Bytes = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]


class Splitter:
    """An object that holds one array, cut into the array's elements and the rest.

    name: the array's, for faults; most_elements: more of them are a fault; placeholder: JSON
    that stands for all elements in `frame`.

    The body is JSON when, and only when, the frame and every element are.
    """

    def __init__(self, name: str, *, most_elements: int, placeholder: bytes) -> None:
        self._name = name
        self._most_elements = most_elements
        self._placeholder = placeholder
        self._frame = bytearray()
        # Of the element that has begun.
        self._parts: list[bytes] = []
        self._structure_bytes = 0
        self._elements = 0
        self._begun = False
        self._depth = 0
        self._in_string = False
        self._escaped = False

    @property
    def frame(self) -> bytes:
        """What is around the array, with one element in it if it has any."""
        return bytes(self._frame)

    def feed(self, piece: bytes) -> list[bytes]:
        """The elements that end in this piece of the body; 64 KiB of it take 0.5 ms.

        Raises HttpError INVALID_ARGUMENT for what is more than a body may hold.
        """
        bytes_ = np.frombuffer(piece, np.uint8)
        outside = ~self._within_strings(bytes_)
        counted = outside & (bytes_ > _SPACE)
        found: list[bytes] = []
        start = 0
        for position in self._marks(bytes_, outside):
            byte = piece[position]
            if byte | _BRACKET_BIT == _OPEN:
                self._begin(piece[start : position + 1])
                start = position + 1
                continue
            self._extend(piece[start:position], counted[start:position])
            if byte == _COMMA:
                found.append(self._end())
                start = position + 1
            else:
                if self._elements or b"".join(self._parts).strip(_WHITE):
                    found.append(self._end())
                    self._frame += self._placeholder
                self._parts.clear()
                start = position  # the bracket is the frame's
        if self._depth >= _WITHIN:
            self._extend(piece[start:], counted[start:])
        else:
            self._extend_frame(piece[start:])
        return found

    def _begin(self, frame: bytes) -> None:
        self._extend_frame(frame)
        if self._begun or frame.endswith(b"{"):
            message = f"Expected no object, and no array but `{self._name}`, once"
            raise invalid([Fault("", message)])
        self._begun = True

    def _extend_frame(self, part: bytes) -> None:
        self._frame += part
        if len(self._frame) > MAX_FRAME_BYTES:
            message = f"Expected at most {MAX_FRAME_BYTES} bytes beside `{self._name}`"
            raise invalid([Fault("", message)])

    def _extend(self, part: bytes, counted: Flags) -> None:
        self._parts.append(part)
        self._structure_bytes += int(np.count_nonzero(counted))
        if self._structure_bytes > MAX_STRUCTURE_BYTES:
            message = f"Expected at most {MAX_STRUCTURE_BYTES} bytes outside of strings"
            raise invalid([Fault(f"{self._name}[{self._elements}]", message)])

    def _end(self) -> bytes:
        self._elements += 1
        if self._elements > self._most_elements:
            message = f"Expected an array of length <= {self._most_elements}"
            raise invalid([Fault(self._name, message)])
        element = b"".join(self._parts).strip(_WHITE)
        self._parts.clear()
        self._structure_bytes = 0
        return element

    def _within_strings(self, piece: Bytes) -> Flags:
        """For each byte whether it is within a string, the opening quote included."""
        quotes = piece == _QUOTE
        backslashes = piece == _BACKSLASH
        if self._escaped or backslashes.any():
            quotes &= ~self._after_backslash(backslashes)
        within = (np.cumsum(quotes, dtype=np.uint8) & 1).astype(np.bool_)
        if self._in_string:
            within = ~within
        if len(within):
            self._in_string = bool(within[-1])
        return within

    def _after_backslash(self, backslashes: Flags) -> Flags:
        """For each byte whether the one before escapes it: every other one of a run does."""
        positions = np.arange(len(backslashes), dtype=np.int32)
        begins = backslashes.copy()
        begins[1:] &= ~backslashes[:-1]
        starts = np.where(begins, positions, 0)
        if self._escaped and backslashes[0]:
            starts[0] = 1  # the first of the run is escaped itself
        run = np.maximum.accumulate(starts)
        escaping = backslashes & (((positions - run) & 1) == 0)
        escaped = np.empty_like(backslashes)
        escaped[0] = self._escaped
        escaped[1:] = escaping[:-1]
        self._escaped = bool(escaping[-1])
        return escaped

    def _marks(self, piece: Bytes, outside: Flags) -> list[int]:
        """Where the array begins and ends, and where the commas between its elements are."""
        folded = piece | _BRACKET_BIT
        opens, closes = folded == _OPEN, folded == _CLOSE
        events = np.flatnonzero(outside & (opens | closes | (piece == _COMMA)))
        if not len(events):
            return []
        steps = opens[events].astype(np.int32) - closes[events]
        depths = self._depth + np.cumsum(steps)
        self._depth = int(depths[-1])
        # Within, a bracket that opens comes to 2 and one that closes to 1; a comma stays at 2.
        marked = depths == np.where(steps < 0, _WITHIN - 1, _WITHIN)
        return [int(position) for position in events[marked]]
