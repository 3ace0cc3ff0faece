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
# The word right before a mark.
_WORD: Final = re.compile(r"[\w.()'’-]*[\w)]$")
# How much of what was read is looked back on for it: longer than names are.
_LOOK_BACK: Final = 64


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
        self._read = ""

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
        self._read = (self._read + ready)[-_LOOK_BACK:]
        return out

    def _judge(self, match: re.Match[str], ready: str) -> str:
        before = ready[: match.start()]
        if (self._ticks + before.count("`")) % 2:
            return match.group()
        if match.group(2) is None:
            return "\n\n" if self._written or before.strip() else ""
        gap = match.group(1)
        named = [int(number) for number in match.group(2).split(",")]
        kept = [number for number in named if 1 <= number <= self._passages]
        if kept == named or (not gap and _is_name(self._read + before)):
            return match.group()
        return f"{gap}[{', '.join(map(str, kept))}]" if kept else ""


def _is_name(text: str) -> bool:
    """Whether `text` ends in what may be a name of code: `a`, `to_list`, `os.path` or `f()`.

    "[9]" right after a name is an index; after any other word it is a citation without a space.
    """
    found = _WORD.search(text[-_LOOK_BACK:])
    if found is None or found.group()[0].isdigit():
        return False
    word = found.group().lstrip("(")
    return (len(word) == 1 and word.isascii()) or any(sign in word for sign in "_.)")
