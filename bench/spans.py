"""How well a text answers a question whose answers people marked: the measures of SQuAD."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from runtime.answers import NO_ANSWER

_ARTICLES: Final = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION: Final = str.maketrans("", "", string.punctuation)
# As the extractive engine writes it: behind a sentence.
_CITATION: Final = re.compile(r" \[(\d+)\](?= |$)")


@dataclass(frozen=True, slots=True)
class Said:
    """What an answer says first.

    sentence: the text up to its first citation; empty where it says that nothing answers.
    marked: the span that is marked in the source of that citation, or in another where the
        sentence goes on; None where none is.
    """

    sentence: str
    marked: str | None

    @property
    def answered(self) -> bool:
        """Whether it gives an answer."""
        return bool(self.sentence)


def said(answer: Mapping[str, Any]) -> Said:
    """Reads the answer of POST /query.

    Where the source has several spans, the one of the first sentence counts.
    """
    text: str = answer["answer"]
    if text == NO_ANSWER:
        return Said("", None)
    sources = answer["sources"]
    # A document's own [12] is no citation of a source.
    citations = (one for one in _CITATION.finditer(text) if 1 <= int(one[1]) <= len(sources))
    citation = next(citations, None)
    if citation is None:
        return Said(text, None)
    sentence = text[: citation.start()]
    cited = marked(sources[int(citation[1]) - 1])
    # A sentence that goes on in another passage may be marked there.
    elsewhere = [span for source in sources for span in marked(source)]
    inside = [span for span in (*cited, *elsewhere) if span in sentence]
    return Said(sentence, next(iter(inside or cited), None))


def marked(source: Mapping[str, Any]) -> list[str]:
    """The texts that are marked in a source of POST /query."""
    return [source["text"][span["start"] : span["end"]] for span in source.get("spans", ())]


def normalised(text: str) -> str:
    """Small letters, without punctuation and articles, single spaces: SQuAD's `normalize_answer`
    (Rajpurkar et al., EMNLP 2016)."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def token_f1(text: str, answers: Sequence[str]) -> float:
    """The best harmonic mean of precision and recall of the tokens, over the answers: 0..1.

    0 where no token is shared, so for a text without one.
    """
    return max(_f1(normalised(text).split(), normalised(answer).split()) for answer in answers)


def exact(text: str, answers: Sequence[str]) -> bool:
    """Whether the text is one of the answers, normalised; an empty one is none."""
    return bool(text) and normalised(text) in {normalised(answer) for answer in answers}


def holds(text: str, answers: Sequence[str]) -> bool:
    """Whether the tokens of an answer stand in the text, side by side.

    An answer of which the normalisation leaves nothing stands nowhere.
    """
    tokens = f" {normalised(text)} "
    return any(f" {normalised(answer)} " in tokens for answer in answers if normalised(answer))


def _f1(found: Sequence[str], wanted: Sequence[str]) -> float:
    shared = (Counter(found) & Counter(wanted)).total()
    return 2 * shared / (len(found) + len(wanted)) if shared else 0.0
