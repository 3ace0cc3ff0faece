"""Documents cut into passages, at the boundaries that mean most."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from semantic_text_splitter import MarkdownSplitter, TextSplitter

from gateway.search.types import Chunking

# Marks that plain prose does not carry at the start of a line: an ATX heading, a code
# fence, a table's delimiter row. One of them is enough. Lists and emphasis are not: they
# occur in plain text too, and the plain splitter cuts those no worse.
_MARKDOWN: Final = re.compile(
    r"^ {0,3}(?:#{1,6}[ \t]+\S|```|~~~|\|?[ \t]*:?-{3,}:?[ \t]*\|)", re.MULTILINE
)

# The end of a hard-wrapped line inside a sentence. The splitter takes every line end for a
# better boundary than the end of a sentence, so wrapped prose would be cut in mid-sentence.
# Such a line is not short, does not end like a sentence, and goes on with a word: no list,
# table or reference begins there.
_SOFT_BREAK: Final = re.compile(
    r"(?<=[^\n]{40}[^\s.!?:;|。！？])\r?\n(?=[^\W\d_]|[`\"'(*“‘](?![ \t`])|\[(?![^\]\n]*\]:))"
)
_FENCED: Final = re.compile(r"^ {0,3}(```|~~~).*?(?:^ {0,3}\1|\Z)", re.MULTILINE | re.DOTALL)

# Marks inside a line. The Markdown splitter takes them, too, for better boundaries than the end
# of a sentence: of the passages of the Rust book 9.6 % began inside a sentence, at a `word` or a
# link. With the marks masked it is 1.9 %. Lengths are bounded, or a line of brackets would be
# read again from each of them. What begins a line stays: it may be a list, a reference, a block.
_MARKS: Final = re.compile(
    r"(?<!`)(`{1,8})(?!`)[^`]+?(?<!`)\1(?!`)"  # code
    r"|(?<=\S)[ ]?<[^>\n]{1,200}>"  # a tag, a comment
    r"|\](?:\([^)\n]{0,200}\)|\[[^\]\n]{0,200}\])"  # the end of a link
    r"|(?<=\S )\[(?=[^\]\n]{1,200}\])"  # its beginning
    r"|(?<=[ \n(\"“])[*_]{1,3}(?=[^\W_])|(?<=[\w.,!?`)])[*_]{1,3}(?=\W)"  # emphasis
)
_MARKED: Final = re.compile(r"\S")
# Characters looked through at a time: some milliseconds, 40 for the worst there can be, in which
# nothing else of the process runs.
_WINDOW: Final = 65_536

# The splitter's time grows with the square of a text without paragraphs: 160,000 characters
# on one line took 0.9 s at 64 characters a chunk, and 2,000,000 would take minutes. So long
# texts are cut into sections of this many chunks first, which keeps it at about 1 s. Where
# no section can end well, the splitter finds little either and is slowest (2,000,000
# characters of Chinese without a mark took 6 s): 1.8 s with sections of fewer chunks there.
SECTION_CHUNKS: Final = 32
UNMARKED_SECTION_CHUNKS: Final = 8
MOST_SECTION_CHARACTERS: Final = 65_536
# Where a section may end, best first.
_SECTION_ENDS: Final = ("\n# ", "\n## ", "\n\n", "\n", ". ", "。", " ")


def cut(text: str, chunking: Chunking) -> list[str]:
    """The passages of `text` in order, none empty, each of at most `chunk_size` characters.

    Neighbours share at most `overlap` characters. Text that looks like Markdown is cut at
    headings and blocks, other text at paragraphs, sentences and words: Markdown rules would
    take the indentation and line breaks of plain text for code and soft wraps. A text of
    nothing but whitespace has no passages. The splitter releases the GIL; 2 ms per 100,000
    characters, of Markdown 2.6 times as much.
    """
    size, overlap = chunking.chunk_size, chunking.overlap
    splitter: MarkdownSplitter | TextSplitter
    if _MARKDOWN.search(text):
        splitter = MarkdownSplitter(size, overlap)
    else:
        splitter = TextSplitter(size, overlap)
    flowing = _unwrapped(text)
    if isinstance(splitter, MarkdownSplitter):
        flowing = _masked(flowing)
    passages: list[str] = []
    start = 0
    for section in _sections(flowing, size):
        for offset, chunk in splitter.chunk_indices(section):
            if chunk and not chunk.isspace():
                # As it was written: only where to cut was decided without the wraps.
                passages.append(text[start + offset : start + offset + len(chunk)])
        start += len(section)
    return passages


def most_chunks(characters: int, chunking: Chunking) -> int:
    """About how many passages a text of that length is cut into, at worst."""
    return characters // (chunking.chunk_size - chunking.overlap) + 1


def _unwrapped(text: str) -> str:
    """`text`, as long as before, with spaces for the line ends inside sentences."""
    return _in_prose(_flow, text) if _SOFT_BREAK.search(text) else text


def _masked(text: str) -> str:
    """`text`, as long as before, with letters for the marks inside its lines."""
    return _in_prose(_lettered, text)


def _lettered(prose: str) -> str:
    # A mark that is cut in two stays, and is a boundary as good as any.
    windows = (prose[start : start + _WINDOW] for start in range(0, len(prose), _WINDOW))
    return "".join(_MARKS.sub(_letters, window) for window in windows)


def _letters(marks: re.Match[str]) -> str:
    # A quotation mark, where letters would hide the end of a sentence: "*So it is.* Next".
    ends = marks[0][0] in "*_" and marks.string[marks.start() - 1] in ".!?"
    return _MARKED.sub('"' if ends else "x", marks[0])


def _in_prose(change: Callable[[str], str], text: str) -> str:
    """`text` with `change` applied to what stands outside fenced code."""
    parts: list[str] = []
    position = 0
    for fenced in _FENCED.finditer(text):
        parts += [change(text[position : fenced.start()]), fenced[0]]
        position = fenced.end()
    return "".join((*parts, change(text[position:])))


def _flow(prose: str) -> str:
    def joined(wrap: re.Match[str]) -> str:
        line_start = prose.rfind("\n", 0, wrap.start()) + 1
        own_line = prose[line_start] in "#|>"  # a heading, a table row, a quotation
        return wrap[0] if own_line else " " * len(wrap[0])

    return _SOFT_BREAK.sub(joined, prose)


def _sections(text: str, chunk_size: int) -> Iterator[str]:
    """`text` in pieces, none so long that the splitter would take long over it."""
    most, unmarked = (
        min(chunks * chunk_size, MOST_SECTION_CHARACTERS)
        for chunks in (SECTION_CHUNKS, UNMARKED_SECTION_CHUNKS)
    )
    start = 0
    while len(text) - start > most:
        half, end = start + most // 2, start + most
        for mark in _SECTION_ENDS:
            found = text.rfind(mark, half, end)
            if found != -1:
                # A heading begins the next section; anything else ends this one.
                end = found + 1 if mark.startswith("\n#") else found + len(mark)
                break
        else:
            end = start + unmarked
        yield text[start:end]
        start = end
    yield text[start:]
