"""Cutting: nothing empty, nothing lost, nothing too long, and no text that takes forever."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.chunking import _masked, _sections, _unwrapped, cut, most_chunks
from gateway.search.types import Chunking


@given(
    text=st.text(max_size=3000),
    size=st.integers(64, 256),
    share=st.floats(0, 0.9),
)
def test_chunks_are_pieces_of_the_text_in_order(text: str, size: int, share: float) -> None:
    chunks = cut(text, Chunking(size, int(size * share)))
    at = 0
    for chunk in chunks:
        assert chunk.strip()
        assert len(chunk) <= size
        at = text.index(chunk, max(at - size, 0))


@given(text=st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=3000))
def test_nothing_but_whitespace_is_lost(text: str) -> None:
    assert "".join(cut(text, Chunking(64, 0))) == text


@pytest.mark.parametrize("text", [" ", "\n\n\t", "\u00a0\u2003", "\u3000\n"])
def test_whitespace_has_no_chunks(text: str) -> None:
    assert cut(text, Chunking(64, 0)) == []


def test_markdown_is_cut_at_headings_and_text_at_sentences() -> None:
    body = "Some words that fill a line of it. "
    markdown = f"# One\n\n{body}\n\n# Two\n\n{body}"
    assert [chunk[:5] for chunk in cut(markdown, Chunking(64, 0))] == ["# One", "# Two"]
    plain = f"{body}{body}{body}"
    assert cut(plain, Chunking(80, 0)) == [f"{body}{body}".strip(), body.strip()]


def test_passages_of_markdown_begin_where_sentences_do() -> None:
    sentences = [
        "The `drop` function of `Vec<T>` is called when the _owner_ goes away.",
        "See [the chapter on ownership][ownership]<!-- ignore --> for a **much** longer answer.",
        "*It is never called twice.* That is what `std::mem::drop` and [`Rc<T>`](rc.html) keep.",
    ]
    text = "# Dropping\n\n" + " ".join(sentences * 4)
    starts = ("The `drop`", "See [the", "*It is", "That is", "# Dropping")
    for size in (128, 200, 300):
        for chunk in cut(text, Chunking(size, 0)):
            assert chunk in text
            assert chunk.startswith(starts)


@given(st.text(st.sampled_from("ab .\n`*_[]()<>!-#|~"), max_size=200))
def test_masking_keeps_length_lines_and_what_is_fenced(text: str) -> None:
    masked = _masked(text)
    assert len(masked) == len(text)
    assert [at for at, sign in enumerate(masked) if sign.isspace()] == [
        at for at, sign in enumerate(text) if sign.isspace()
    ]
    fence = "```\n`a` *b* [c](d) <e>\n```"
    assert _masked(f"{fence}\n") == f"{fence}\n"


@pytest.mark.parametrize("unit", ["[ ", " <a", "`a ", "](", "a_ _b "])
def test_no_line_of_marks_takes_forever(unit: str) -> None:
    started_s = time.monotonic()
    _masked(unit * (200_000 // len(unit)))
    # 0.3 s at most; minutes if each mark read the rest of the line.
    assert time.monotonic() - started_s < 10


def test_sections_lose_nothing_of_long_texts() -> None:
    words = [f"word{number}" for number in range(30_000)]
    chunks = cut(" ".join(words), Chunking(128, 0))
    assert " ".join(chunks).split() == words


@pytest.mark.parametrize("unit", ["x", "a ", "- a b\n", "漢字"])
def test_no_text_takes_forever(unit: str) -> None:
    started_s = time.monotonic()
    chunks = cut(unit * (200_000 // len(unit)), Chunking(512, 50))
    # 0.1 s for most of these, 1 s for Chinese; minutes before there were sections.
    assert time.monotonic() - started_s < 20
    assert 200_000 / 512 * 0.9 < len(chunks) < 2 * most_chunks(200_000, Chunking(512, 50))


WRAPPED = (
    "The quick brown fox jumps over the lazy dog and then\n"
    "goes home to sleep. After that nothing else happens to\n"
    "anybody for a very long time, which is all there is to\n"
    "say about it. The end of the story has come at last now.\n"
)


@pytest.mark.parametrize("head", ["", "# A heading\n\n"], ids=["plain", "markdown"])
def test_hard_wrapped_prose_is_cut_where_sentences_end(head: str) -> None:
    passages = cut(head + WRAPPED, Chunking(128, 0))
    assert len(passages) > 1
    assert all(passage.endswith((".", "A heading")) for passage in passages)
    # Cut as if it were one line, and kept as it was written.
    assert all(passage in head + WRAPPED for passage in passages)
    assert any("\n" in passage for passage in passages)


@pytest.mark.parametrize(
    "lines",
    [
        "- a list item that is long enough to look like a wrapped line of text\n- another item\n",
        "| a table row that is long enough to look like a wrapped line of text |\n| more |\n",
        "## A heading that is long enough to look like a wrapped line of text\nand its text.\n",
        "```\nlet a_line_of_code_that_is_long_enough = to(look_like_a_wrapped, line)\nlet b\n```\n",
        "short lines\nof a poem\n",
    ],
)
def test_line_ends_that_mean_something_stay(lines: str) -> None:
    assert _unwrapped(lines) == lines


def test_sections_are_short_only_where_none_can_end_well() -> None:
    for text, shortest, longest in (("漢字" * 5000, 1024, 1024), ("漢 字 " * 5000, 2048, 4096)):
        sections = list(_sections(text, 128))
        assert "".join(sections) == text
        assert all(shortest <= len(section) <= longest for section in sections[:-2])
