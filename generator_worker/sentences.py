"""Markdown or plain text into the sentences that may stand in an answer.

Passages are chunks, cut anywhere: a code fence may be open at either end. Code,
headings and HTML are not sentences. What comes out is readable by itself: link
targets, emphasis marks and the source's own footnote marks are taken off, so
that `[n]` in an answer is always one of ours.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Final

from markdown_it import MarkdownIt

# Longer "sentences" (tables of data, logs, text without full stops) are cut at a space: the
# embedding model reads about 256 tokens and a person less.
MAX_SENTENCE_CHARACTERS: Final = 500
# The same before markup is taken off.
MAX_RAW_CHARACTERS: Final = 2000
# Longer than any chunk.
MAX_PASSAGE_CHARACTERS: Final = 16_384
# The longest abbreviation with what stands before it.
ABBREVIATION_CHARACTERS: Final = 16
MIN_WORDS: Final = 3
# Share of the characters that code is full of and prose is not. Over the Rust book the
# sentences of its prose stay below .05 outside of `code`, lines of its listings lie above .07.
MAX_SYMBOL_SHARE: Final = 0.06

_FENCE = re.compile(r"^[ \t>]*(?:`{3,}|~{3,})([^`\n]*)$", re.MULTILINE)
_CODE_SPAN = re.compile(r"(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
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

_IMAGE = re.compile(r"!\[[^\]]*\](?:\([^)]*\)|\[[^\]]*\])?")
_FOOTNOTE = re.compile(
    r"\[(?:\^[^\]]*|\d{1,4}(?:\s*[,–-]\s*\d{1,4})*|note \d+|citation needed)\](?!\()", re.IGNORECASE
)
_LINK = re.compile(r"\[([^\[\]]*)\](?:\((?:[^()]|\([^()]*\))*\)|\[[^\[\]]*\])?")
_AUTOLINK = re.compile(r"<((?:https?|mailto):[^>\s]+)>")
_TAG = re.compile(r"<!--.*?(?:-->|$)|</?[a-zA-Z][^<>]*>", re.DOTALL)
_TEMPLATE = re.compile(r"\{\{#[^{}]{0,200}\}\}")
# The lengths are bounded, or a text of nothing but marks takes the square of its length.
_STRONG = re.compile(r"(\*\*\*|\*\*|\*|~~)(?=\S)(.{1,300}?)(?<=\S)\1", re.DOTALL)
_UNDERSCORED = re.compile(r"(?<!\w)(__|_)(?=\S)(.{1,300}?)(?<=\S)\1(?!\w)", re.DOTALL)
_ESCAPE = re.compile(r"\\([!-/:-@\[-`{-~])")
_HIDDEN = re.compile("\x00(\\d+)\x00")


def split_sentences(passage: str) -> list[str]:
    """The sentences of a passage in reading order, cleaned, none empty or longer than
    MAX_SENTENCE_CHARACTERS; list items and table rows count as sentences of their own.

    Reads the first MAX_PASSAGE_CHARACTERS.
    """
    sentences = []
    text = passage[:MAX_PASSAGE_CHARACTERS].replace("\x00", "")
    for block in _prose_blocks(_after_open_fence(text)):
        for raw in _split_block(block):
            sentence = _cut(plain(raw[:MAX_RAW_CHARACTERS]))
            if _is_prose(sentence):
                sentences.append(sentence)
    return sentences


def plain(markdown: str) -> str:
    """Inline Markdown as readable text on one line; `code` keeps its backticks."""
    spans: list[str] = []

    def hide(text: str) -> str:
        spans.append(text)
        return f"\x00{len(spans) - 1}\x00"

    text = _CODE_SPAN.sub(lambda match: hide(match.group()), markdown)
    # An escaped or encoded "[1]" must not pass for a citation either.
    text = re.sub(r"\\([\[\]])", r"\1", text)
    text = _ESCAPE.sub(lambda match: hide(match.group(1)), text)
    text = _AUTOLINK.sub(r"\1", _TEMPLATE.sub("", text))
    text = html.unescape(_TAG.sub("", text))
    text = _FOOTNOTE.sub("", _IMAGE.sub("", text))
    text = _LINK.sub(r"\1", text)
    for _ in range(2):  # emphasis inside emphasis
        text = _UNDERSCORED.sub(r"\2", _STRONG.sub(r"\2", text))
    text = _HIDDEN.sub(lambda match: spans[int(match.group(1))], text)
    # A footnote taken off may leave a space before the full stop.
    return re.sub(r"\s+([.,;:!?])(?=\s|$)", r"\1", " ".join(text.split()))


def is_question(sentence: str) -> bool:
    """Whether the sentence asks: it answers nothing, however near it is to the question."""
    return _ASKS.search(sentence) is not None


def is_announcement(sentence: str) -> bool:
    """Whether what it says comes only after it, as in "... like this:"."""
    return sentence.endswith((":", "："))


def is_cut(sentence: str, *, first: bool, last: bool) -> bool:
    """Whether a sentence, first or last of its passage, looks cut there."""
    return (first and sentence[0].islower()) or (last and not _ENDS.search(sentence))


def words(text: str) -> list[str]:
    """The words of a text, folded for comparison."""
    return _WORD.findall(text.casefold())


def _after_open_fence(passage: str) -> str:
    """The passage without the code it starts in the middle of, if it does.

    A fence with an info string can only open. Reading the fences from either
    state, the one that contradicts this less is taken; when in doubt, a
    passage starts outside.
    """
    fences = list(_FENCE.finditer(passage))

    def faults(inside: bool) -> int:
        found = 0
        for fence in fences:
            opens = bool(fence.group(1).strip())
            found += 2 * (opens and inside)
            inside = opens or not inside
        return found + inside

    if fences and faults(inside=True) < faults(inside=False):
        return passage[fences[0].end() :]
    return passage


def _prose_blocks(passage: str) -> Iterator[str]:
    """Paragraphs, list items, quotes and table rows (cells joined by dashes)."""
    # Indented text is code to CommonMark; in plain text it is just indented.
    parser = MarkdownIt("commonmark").enable("table").disable(["code", "inline", "reference"])
    cells: list[str] = []
    within = ""
    for token in parser.parse(passage):
        if token.type in ("heading_open", "thead_open", "td_open"):
            within = token.type
        elif token.type in ("heading_close", "thead_close", "td_close"):
            within = ""
        elif token.type == "tr_open":
            cells = []
        elif token.type == "tr_close" and cells:
            yield " – ".join(cells)
        elif token.type == "inline" and token.content.strip():
            if within == "td_open":
                cells.append(token.content.strip())
            # A line of dashes below a paragraph makes it a heading to CommonMark.
            elif not within or (within == "heading_open" and token.content.rstrip()[-1] in ".!?"):
                yield token.content


def _split_block(block: str) -> Iterator[str]:
    masked = _CODE_SPAN.sub(_mask, block)
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
    outside = _CODE_SPAN.sub("", sentence)
    return len(_SYMBOL.findall(outside)) <= MAX_SYMBOL_SHARE * len(outside)
