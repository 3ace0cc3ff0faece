"""A language model's text as it streams, with the marks set right that it may get wrong."""

from __future__ import annotations

import re
from typing import Final

# A citation, or a field marker of DSPy's chat format, in which models tuned with it answer.
_MARK: Final = re.compile(r"\s*\[\[ ## \w+ ## \]\]\s*|(\s*)\[(\d+(?:\s*,\s*\d+)*)\]")
# What may yet become one: it is held back until it is clear.
_UNFINISHED: Final = re.compile(
    r"\s*(?:\[[\d\s,]*|\[\[(?: (?:#(?:#(?: (?:\w+(?: (?:#(?:#(?: \]?)?)?)?)?)?)?)?)?)?)?$"
)
# A name with "[1]" right after it is an index.
_INDEXED: Final = re.compile(r"[\w)]")


class AnswerText:
    """Takes off citations of passages that were not shown, field markers, and space around.

    Inside of `code`, brackets are left alone.
    """

    def __init__(self, passages: int) -> None:
        self._passages = passages
        self._held = ""
        self._written: list[str] = []
        self._ticks = 0
        # Space at the end of what was given out; it goes out before what follows, if anything.
        self._space = ""
        self._last = ""

    @property
    def text(self) -> str:
        """All that was given out."""
        return "".join(self._written)

    def push(self, piece: str) -> str:
        """What of the text so far may be given out now; may be empty."""
        self._held += piece
        unfinished = _UNFINISHED.search(self._held)
        end = unfinished.start() if unfinished else len(self._held)
        ready, self._held = self._held[:end], self._held[end:]
        return self._give(ready)

    def finish(self) -> str:
        """The rest."""
        rest, self._held = self._held, ""
        return self._give(rest)

    def _give(self, ready: str) -> str:
        raw = self._space + _MARK.sub(lambda match: self._judge(match, ready), ready)
        if not self._written:
            raw = raw.lstrip()
        out = raw.rstrip()
        self._space = raw[len(out) :]
        if out:
            self._written.append(out)
            self._ticks += out.count("`")
        self._last = (raw or self._last)[-1:]
        return out

    def _judge(self, match: re.Match[str], ready: str) -> str:
        before = ready[: match.start()]
        if (self._ticks + before.count("`")) % 2:
            return match.group()
        if match.group(2) is None:
            return "\n\n" if self._written or before.strip() else ""
        gap = match.group(1)
        if not gap and _INDEXED.match(before[-1:] or self._last):
            return match.group()
        named = [int(number) for number in match.group(2).split(",")]
        kept = [number for number in named if 1 <= number <= self._passages]
        if kept == named:
            return match.group()
        return f"{gap}[{', '.join(map(str, kept))}]" if kept else ""
