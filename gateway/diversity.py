"""Which passages are shown: no document fills the list, and no text stands in it twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final, Protocol, TypeVar

from gateway.text import normalise

# Passages looked at for each that is shown, so that others are there for those left out.
SPARE: Final = 3
# But no more than this for their sake: at 600 both stages are fused deeper for the same recall@50
# (.880 of the quiz, through the running system).
MOST: Final = 200


class Shown(Protocol):
    """A passage, as far as it matters here."""

    @property
    def document_id(self) -> str:
        """The document it was cut from."""

    @property
    def text(self) -> str:
        """As it was cut."""


P = TypeVar("P", bound=Shown)


def looked_at(shown: int, per_document: int) -> int:
    """How many passages to look for where so many are shown."""
    return max(shown, min(shown * SPARE, MOST)) if per_document else shown


def diverse(passages: Sequence[P], limit: int, per_document: int) -> list[P]:
    """At most `limit` of the passages, in their order.

    passages: best first. Of a document the best `per_document` are taken, and of passages
        that differ in nothing but whitespace the best one. Only where these are fewer than
        `limit`, surplus passages are taken as well, best first: first those of documents
        that have had their share, then repeated texts.
    per_document: 0 takes the first `limit`, whatever they are.

    What is taken keeps its order, so scores that never increase still do not.
    """
    if per_document == 0:
        return list(passages[:limit])
    # Positions by how much they add: something new, more of a document, nothing.
    new: list[int] = []
    more: list[int] = []
    repeated: list[int] = []
    surplus: list[int] = []
    taken: Counter[str] = Counter()
    texts: set[str] = set()
    for position, passage in enumerate(passages):
        if len(new) == limit:
            break
        if taken[passage.document_id] >= per_document:
            surplus.append(position)
        elif (text := normalise(passage.text)) in texts:
            repeated.append(position)
        else:
            new.append(position)
            texts.add(text)
            taken[passage.document_id] += 1
    # Only now: a document that has room may have brought the same text.
    for position in surplus:
        text = normalise(passages[position].text)
        (repeated if text in texts else more).append(position)
        texts.add(text)
    return [passages[at] for at in sorted([*new, *more, *sorted(repeated)][:limit])]
