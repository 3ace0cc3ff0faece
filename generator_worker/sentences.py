"""Passages into the sentences that may stand in an answer, and how much of one each is.

Passages are chunks, cut anywhere. Code, headings, HTML and lines of links are not
sentences.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import Final

from generator_worker.markdown import (
    CODE_SPAN,
    MAX_RAW_CHARACTERS,
    Block,
    is_links,
    plain,
    read_blocks,
)

# Longer "sentences" (tables of data, logs, text without full stops) are cut at a space: the
# embedding model reads about 256 tokens and a person less.
MAX_SENTENCE_CHARACTERS: Final = 500
# The longest abbreviation with what stands before it.
ABBREVIATION_CHARACTERS: Final = 16
MIN_WORDS: Final = 3
# A title is no longer; two of the Rust book's 588 headings have one word more.
MAX_TITLE_WORDS: Final = 12
# A longer passage of one sentence without its end was cut.
MAX_LINE_WORDS: Final = 25
# Neighbouring chunks share more; fewer characters in common may be chance.
MIN_SHARED_CHARACTERS: Final = 12
# Share of the characters that code is full of and prose is not. Over the Rust book the
# sentences of its prose stay below .05 outside of `code`, lines of its listings lie above .07.
MAX_SYMBOL_SHARE: Final = 0.06

_TARGET = re.compile(r"(?<=\])\([^()\s]*(?:\s+\"[^\"]*\")?\)")
_SYMBOL = re.compile(r"[{}\[\]=<>;&|\\#$@^~*_]")
# Word characters of scripts written without spaces count one by one.
_WORD = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]|[^\W_]+(?:['’][^\W_]+)*"
)

_CLOSERS = r"[\"'”’»›)\]*_`]*"
_OPENERS = r"[\"'“‘«‹(\[*_`¿¡]*"
_BOUNDARY = re.compile(
    rf"(?:[.!?…؟۔।॥]+{_CLOSERS}(?=\s+({_OPENERS}.))|[。！？｡]+[」』”’）\"']*)", re.DOTALL
)
# After these a full stop ends no sentence.
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\[\"'“‘])(?:e\.g|i\.e|a\.k\.a|cf|vs|etc|approx|ca|al|resp|Mr|Mrs|Ms|Dr|Prof|Sr|Jr|St"
    r"|Mt|Lt|Col|Gen|Gov|Sgt|Capt|Rev|Hon|Inc|Ltd|Corp|Co|No|Nos|Fig|Figs|Eq|Sec|Ch|Vol|pp?"
    r"|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec|z\.B|d\.h|bzw|usw|Nr|[^\W\d_]|(?:[^\W\d_]\.)+"
    r"[^\W\d_])$",
    re.IGNORECASE,
)

_ASKS = re.compile(r"[?？؟]+[\"'”’»)\]」』）]*$")
_ENDS = re.compile(r"[.!?…。！？｡؟۔।॥:：][\"'”’»)\]`」』）]*$")

# Verbs that make a statement of a line, as far as a list can name them.
_STATES = re.compile(
    r"\b(?:am|is|are|was|were|has|have|had|do|does|did|can|cannot|could|may|might|must|shall"
    r"|should|will|would|means?|needs?|lets?|allows?|takes?|makes?|gives?|costs?|runs?|uses?)\b"
    r"|n['’]t\b|['’](?:re|ve|ll|m|d)\b|\b(?:it|he|she|that|there)['’]s\b",
    re.IGNORECASE,
)
# Words that a heading in title case capitalises.
_LONG_WORD = re.compile(r"[^\W\d_]{4,}")
MIN_CAPITALISED: Final = 3
# Without a question mark or a full stop these announce a topic: "How to write tests".
_TOPIC = re.compile(r"(?:how|what|when|where|which|who|whose|why)\b", re.IGNORECASE)
_LEANS = re.compile(
    r"(?:this|these|those|they|he|she|it|both of|in other words|however|next|but|so|then|also"
    r"|therefore|thus|instead|in addition|for example|notice|note|now)\b",
    re.IGNORECASE,
)
_EMPHASISED = re.compile(r"\s*(\*{1,3}|_{1,3})(?=\S)[^*_]{1,300}(?<=\S)\1\s*")
# As in: opening hours: 9 to 17; 24 months of warranty.
_FACT = re.compile(r"\d|[:：]\s*\S")


class Form(Enum):
    """How much of a sentence it is."""

    WHOLE = "whole"
    # Cut at the edge of its passage, or an announcement of what follows, or a line without a
    # full stop among sentences that have theirs.
    PART = "part"
    # A few words that state nothing, as headings and the lines of a table of contents.
    TITLE = "title"


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Characters [start, end) of the text of a passage (0-based), as it was given."""

    passage: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A sentence as it is read; places: where its source stands, none where that is not known."""

    text: str
    places: tuple[Place, ...] = ()


def split_sentences(passage: str, number: int = 0) -> list[Excerpt]:
    """The sentences of a passage in reading order, cleaned, none empty or longer than
    MAX_SENTENCE_CHARACTERS; list items count as sentences of their own, and so do table rows
    ("Type: i32; Size: 4 bytes."). number: of the passage, for the places.
    """
    sentences: list[Excerpt] = []
    for block, following in pairwise([*read_blocks(passage), Block("")]):
        if block.row:
            # Semicolons are not what tells code here.
            if _is_prose(block.text.replace(";", "")):
                place = Place(number, block.start, block.start + len(block.lines))
                text = _cut(block.text)
                sentences.append(Excerpt(text, (place,) if text == block.text else ()))
        elif not is_links(block.text) and not _is_heading(block, following):
            sentences.extend(_excerpts(block, number))
    return sentences


def _excerpts(block: Block, number: int) -> Iterator[Excerpt]:
    after = block.start
    for raw in _split_block(block.text):
        whole = plain(raw[:MAX_RAW_CHARACTERS])
        text = _cut(whole)
        # What is read is never longer than its source, so of a sentence that is cut so many
        # characters are read for certain.
        shown = MAX_RAW_CHARACTERS if text == whole else len(text) - 1
        found = block.find(raw[:shown], after)
        if found is not None:
            after = found[1]
        if _is_prose(text):
            yield Excerpt(text, () if found is None else (Place(number, *found),))


def is_question(sentence: str) -> bool:
    """Whether the sentence asks: it answers nothing, however near it is to the question."""
    return _ASKS.search(sentence) is not None


def forms(passages: Sequence[Sequence[str]]) -> list[list[Form]]:
    """Form of each sentence of each passage."""
    # Where nothing ends with a full stop, the lack of one says nothing.
    punctuated = any(_ENDS.search(text) for texts in passages for text in texts)
    return [
        [_form(text, index, len(texts), punctuated) for index, text in enumerate(texts)]
        for texts in passages
    ]


def _form(text: str, index: int, count: int, punctuated: bool) -> Form:
    if text.endswith((":", "：")):  # what it says comes only after it, as in "... like this:"
        return Form.PART
    if is_title(text):
        return Form.TITLE
    # Of 222 chunks of the Rust book that begin with `code`, 211 begin inside a sentence.
    if index == 0 and text[0] == "`":
        return Form.PART
    if count == 1 and len(words(text)) <= MAX_LINE_WORDS:  # hardly cut
        return Form.WHOLE
    if (index == 0 and text[0].islower()) or (punctuated and not _ENDS.search(text)):
        return Form.PART
    return Form.WHOLE


def leans(sentence: str) -> bool:
    """Whether it goes on from a sentence before it."""
    return _LEANS.match(sentence) is not None


def is_title(sentence: str) -> bool:
    """Whether it reads like a heading: short, without a full stop, stating nothing."""
    if _ENDS.search(sentence) or _FACT.search(sentence):
        return False
    if len(words(sentence)) > MAX_TITLE_WORDS:
        return False
    outside = CODE_SPAN.sub("", sentence)  # `let` is no verb
    long = _LONG_WORD.findall(outside)
    in_title_case = len(long) >= MIN_CAPITALISED and all(word[0].isupper() for word in long)
    return in_title_case or _TOPIC.match(sentence) is not None or not _STATES.search(outside)


def join(head: str, tail: str) -> str | None:
    """The sentence of which two overlapping chunks hold the beginning and the end; None
    when the one does not go on where the other stops."""
    at = head.find(tail[:MIN_SHARED_CHARACTERS]) if len(tail) >= MIN_SHARED_CHARACTERS else -1
    while at != -1:
        shared = head[at:]
        starts_word = at == 0 or head[at - 1].isspace()
        if starts_word and len(shared) >= MIN_SHARED_CHARACTERS and tail.startswith(shared):
            return _cut(head[:at] + tail)
        at = head.find(tail[:MIN_SHARED_CHARACTERS], at + 1)
    return None


def words(text: str) -> list[str]:
    """The words of a text, folded for comparison."""
    return _WORD.findall(text.casefold())


def _is_heading(block: Block, following: Block) -> bool:
    """Whether it is a heading without the mark of one: an emphasised title, or a title on a
    line of its own that sentences come after."""
    if len(block.text) > MAX_SENTENCE_CHARACTERS or block.row:
        return False
    if _EMPHASISED.fullmatch(block.text):
        return is_title(plain(block.text))
    if block.in_list or following.in_list or following.row or "\n" in block.text:
        return False
    after = following.text.rstrip()
    return after.endswith((".", "!", ":", "。")) and is_title(plain(block.text))


def _split_block(block: str) -> Iterator[str]:
    masked = CODE_SPAN.sub(_mask, block)
    masked = _TARGET.sub(_mask, masked)
    start = 0
    for match in _BOUNDARY.finditer(masked):
        following = match.group(1)
        if following is not None:
            if following[-1].islower():
                continue
            end = match.start()
            before = masked[max(start, end - ABBREVIATION_CHARACTERS) : end]
            if masked[end] == "." and _ABBREVIATION.search(before):
                continue
        yield block[start : match.end()].strip()
        start = match.end()
    yield block[start:].strip()


def _mask(match: re.Match[str]) -> str:
    # In capitals: a sentence may start with code.
    return "X" * len(match.group())


def _cut(sentence: str) -> str:
    if len(sentence) <= MAX_SENTENCE_CHARACTERS:
        return sentence
    head = sentence[: MAX_SENTENCE_CHARACTERS - 1]
    return head[: head.rfind(" ") if " " in head[200:] else None].rstrip() + "…"


def _is_prose(sentence: str) -> bool:
    if len(words(sentence)) < MIN_WORDS:
        return False
    outside = CODE_SPAN.sub("", sentence)
    return len(_SYMBOL.findall(outside)) <= MAX_SYMBOL_SHARE * len(outside)
