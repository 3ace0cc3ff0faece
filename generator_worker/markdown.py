"""Markdown or plain text into readable prose.

A passage may be cut anywhere: a code fence may be open at either end. What comes
out is readable by itself: link targets, emphasis marks and the source's own footnote
marks are taken off, so that `[n]` in an answer is always one of ours.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from markdown_it import MarkdownIt

# Of one sentence or table cell, before markup is taken off.
MAX_RAW_CHARACTERS: Final = 2000
# Longer than any chunk.
MAX_PASSAGE_CHARACTERS: Final = 16_384

CODE_SPAN = re.compile(r"(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
_FENCE = re.compile(r"^[ \t>]*(?:`{3,}|~{3,})([^`\n]*)$", re.MULTILINE)
_IMAGE = re.compile(r"!\[[^\]]*\](?:\([^)]*\)|\[[^\]]*\])?")
_FOOTNOTE = re.compile(
    r"\[(?:\^[^\]]*|\d{1,4}(?:\s*[,–-]\s*\d{1,4})*|note \d+|citation needed)\](?!\()", re.IGNORECASE
)
_LINK = re.compile(r"\[([^\[\]]*)\](?:\((?:[^()]|\([^()]*\))*\)|\[[^\[\]]*\])?")
_DEFINITION = re.compile(
    r"^ {0,3}\[[^\[\]\n]+\]:[ \t]*\S+(?:[ \t]+\"[^\"\n]*\")?[ \t]*$", re.MULTILINE
)
_AUTOLINK = re.compile(r"<((?:https?|mailto):[^>\s]+)>")
_TAG = re.compile(r"<!--.*?(?:-->|$)|</?[a-zA-Z][^<>]*>", re.DOTALL)
_TEMPLATE = re.compile(r"\{\{#[^{}]{0,200}\}\}")
# The lengths are bounded, or a text of nothing but marks takes the square of its length.
_STRONG = re.compile(r"(\*\*\*|\*\*|\*|~~)(?=\S)(.{1,300}?)(?<=\S)\1", re.DOTALL)
_UNDERSCORED = re.compile(r"(?<!\w)(__|_)(?=\S)(.{1,300}?)(?<=\S)\1(?!\w)", re.DOTALL)
_ESCAPE = re.compile(r"\\([!-/:-@\[-`{-~])")
_NEWLINE = re.compile(r"\r\n?|\n")
_HIDDEN = re.compile("\x00(\\d+)\x00")


@dataclass(frozen=True, slots=True)
class Block:
    """Source of a paragraph, or of a list item, or a table row that is ready to be read.

    lines: of the passage, whole, that hold it; start: the place of their first character in it.
    """

    text: str
    lines: str = ""
    start: int = 0
    in_list: bool = False
    row: bool = False

    def find(self, part: str, after: int) -> tuple[int, int] | None:
        """Characters [start, end) of the passage that `part` of the text takes, not before
        `after`; None where it is not there but for indents and marks of quotes."""
        begin = -1
        end = max(0, after - self.start)
        for line in map(str.strip, part.split("\n")):
            at = self.lines.find(line, end)
            if at < 0 or (begin >= 0 and self.lines[end:at].strip("> \t\r\n")):
                return None
            begin = at if begin < 0 else begin
            end = at + len(line)
        return self.start + begin, self.start + end


def plain(markdown: str) -> str:
    """Inline Markdown as readable text on one line; `code` keeps its backticks."""
    spans: list[str] = []

    def hide(text: str) -> str:
        spans.append(text)
        return f"\x00{len(spans) - 1}\x00"

    text = CODE_SPAN.sub(lambda match: hide(match.group()), markdown)
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


def read_blocks(passage: str) -> Iterator[Block]:
    """Paragraphs, list items, quotes and table rows; no code, no HTML, no headings.

    Reads the first MAX_PASSAGE_CHARACTERS.
    """
    # Indented text is code to CommonMark; in plain text it is just indented.
    parser = MarkdownIt("commonmark").enable("table").disable(["code", "inline", "reference"])
    headers: list[str] = []
    cells: list[str] = []
    within = ""
    lists = 0
    row: Sequence[int] = ()
    # Every character stays in its place.
    text = passage[:MAX_PASSAGE_CHARACTERS].replace("\x00", "\ufffd")
    text = _DEFINITION.sub(lambda match: " " * len(match.group()), text)
    outside = _end_of_open_fence(text)
    starts = [outside, *(match.end() for match in _NEWLINE.finditer(text, outside)), len(text)]

    def block(content: str, map_: Sequence[int], **kind: bool) -> Block:
        start, end = (starts[min(line, len(starts) - 1)] for line in map_)
        return Block(content, text[start:end], start, **kind)

    for token in parser.parse(text[outside:]):
        if token.type in ("heading_open", "th_open", "td_open"):
            within = token.type
        elif token.type in ("heading_close", "th_close", "td_close"):
            within = ""
        elif token.type in ("bullet_list_open", "ordered_list_open"):
            lists += 1
        elif token.type in ("bullet_list_close", "ordered_list_close"):
            lists -= 1
        elif token.type == "thead_open":
            headers = []
        elif token.type == "tr_open":
            cells = []
            row = token.map or [0, 0]
        elif token.type == "tr_close" and cells:
            yield block(_row(headers, cells), row, row=True)
        elif token.type == "inline":
            if within == "th_open":
                headers.append(plain(token.content[:MAX_RAW_CHARACTERS]))
            elif within == "td_open":
                cells.append(plain(token.content[:MAX_RAW_CHARACTERS]))
            # A line of dashes below a paragraph makes it a heading to CommonMark.
            elif token.content.strip() and (
                not within or (within == "heading_open" and token.content.rstrip()[-1] in ".!?")
            ):
                yield block(token.content, token.map or [0, 0], in_list=lists > 0)


def is_links(block: str) -> bool:
    """Whether it is links and nothing else, as in a table of contents."""
    source = block[:MAX_RAW_CHARACTERS]
    rest = _LINK.sub("", _AUTOLINK.sub("", _IMAGE.sub("", source)))
    return rest != source and not re.search(r"[^\W_]", rest)


def _end_of_open_fence(passage: str) -> int:
    """Where the code ends that the passage starts in the middle of; 0 if it does not.

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
        return fences[0].end()
    return 0


def _row(headers: Sequence[str], cells: Sequence[str]) -> str:
    """ "Type: i32; Size: 4 bytes." Every row has as many cells as the header, by the parser."""
    named = (
        f"{header}: {cell}" if header else cell
        for header, cell in zip(headers, cells, strict=True)
        if cell
    )
    return "; ".join(text.rstrip(".;") for text in named) + "."
