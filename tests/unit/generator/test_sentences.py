"""Markdown and plain text into sentences."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from generator_worker.sentences import (
    MAX_SENTENCE_CHARACTERS,
    Form,
    forms,
    is_title,
    join,
    leans,
    plain,
    words,
)
from generator_worker.sentences import split_sentences as excerpts


def split_sentences(passage: str) -> list[str]:
    """The texts alone."""
    return [excerpt.text for excerpt in excerpts(passage)]


@pytest.mark.parametrize(
    ("passage", "sentences"),
    [
        ("Paris is the capital of France", ["Paris is the capital of France"]),
        (
            "Dr. Smith met J. Doe, e.g. in the U.S. embassy. It cost 3.5 million.",
            ["Dr. Smith met J. Doe, e.g. in the U.S. embassy.", "It cost 3.5 million."],
        ),
        (
            'Is that really so? "Yes, it is." (See No. 5 there.) And so on… Then it ends!',
            [
                "Is that really so?",
                '"Yes, it is."',
                "(See No. 5 there.)",
                "And so on…",
                "Then it ends!",
            ],
        ),
        ("It runs v1.2.3 of foo.bar now. Next one here.", None),
        ("今日は天気がいい。散歩に行きましょう！", ["今日は天気がいい。", "散歩に行きましょう！"]),
        (
            "Это первое длинное предложение. А это уже второе.",
            ["Это первое длинное предложение.", "А это уже второе."],
        ),
        (
            "هل هذا السؤال جيد؟ نعم هو كذلك جدا.",
            ["هل هذا السؤال جيد؟", "نعم هو كذلك جدا."],
        ),
        ("One line is\nwrapped over two. And\nanother here.", None),
        ("", []),
        (" \n\n", []),
    ],
)
def test_plain_text(passage: str, sentences: list[str] | None) -> None:
    found = split_sentences(passage)
    if sentences is None:
        assert len(found) == 2
        assert not any("\n" in sentence for sentence in found)
    else:
        assert found == sentences


def test_markdown_keeps_prose_and_leaves_headings_code_and_html() -> None:
    passage = (
        "# A heading is no sentence\n\n"
        "The first **real** sentence, with a [link](https://a.b/c.D) and `code.Here()`.\n\n"
        "```rust\nlet not_a_sentence = true; // really not one.\n```\n\n"
        '<div class="note">\nneither is this here\n</div>\n\n'
        "- a list item of words\n  - nested in another one\n\n"
        "> A quoted sentence is kept.\n\n"
        "| Type | Size |\n|---|---|\n| `i32` integers | four bytes |\n"
    )
    assert split_sentences(passage) == [
        "The first real sentence, with a link and `code.Here()`.",
        "a list item of words",
        "nested in another one",
        "A quoted sentence is kept.",
        "Type: `i32` integers; Size: four bytes.",
    ]


@pytest.mark.parametrize(
    "passage",
    [
        'let s = String::from("a b c");\n}\n```\n\nProse follows the code.',
        "some code of words here\n```\n\nProse follows the code.\n\n```rust\nfn main() {",
        "Prose follows the code.\n\n```text\nwords that are not cited ever",
        "Prose follows the code.\n\n~~~\nwords that are not cited ever\n~~~",
        "> ```\n> words in quoted code here\n> ```\n\nProse follows the code.",
    ],
)
def test_code_is_never_a_sentence_wherever_the_passage_was_cut(passage: str) -> None:
    assert split_sentences(passage) == ["Prose follows the code."]


@pytest.mark.parametrize(
    "passage",
    [
        "- [How to Write Tests](ch11-01-writing-tests.html)\n  - [A Test of It](ch11-02.html)\n",
        "[The Rust Programming Language](title-page.md)\n[The Foreword Here](foreword.md)",
        "1. [How to Write Tests](ch11-01.html), <https://example.org/how-to-write-tests>",
        "[how to write tests]: ch11-01-writing-tests.html\n",
        "**Installing Rust on Linux**\n",
        "__Installing Rust on Linux__\n\n- a `list`\n",
        "Installing Rust on Linux\n========\n",
        "Installing Rust on Linux\n\n```\nlet x = 1;\n```\n",
    ],
)
def test_headings_and_links_alone_are_no_sentences(passage: str) -> None:
    prose = "Rust is installed by `rustup`."
    assert split_sentences(f"{passage}\n\n{prose}") == [prose]


def test_what_only_looks_like_a_heading_is_kept() -> None:
    for passage in (
        "**Save your work before you close it.**\n\nThe rest follows here.",
        "The shop is open on Sundays\n\nThe rest follows here.",
        "Opening hours: 9 to 17\n\nThe rest follows here.",
        "See [the chapter on tests](ch11.html)\n\nThe rest follows here.",
    ):
        assert len(split_sentences(passage)) == (1 if passage.startswith("See") else 2)


def test_a_table_row_names_its_columns() -> None:
    passage = (
        "| Length | Signed | | Note |\n|---|---|---|---|\n"
        "| 8-bit | `i8` | extra | Small. One byte. |\n| 16-bit | `i16` |\n"
        "| a | `b` | | |\n"
    )
    assert split_sentences(passage) == [
        "Length: 8-bit; Signed: `i8`; extra; Note: Small. One byte.",
        "Length: 16-bit; Signed: `i16`.",
        "Length: a; Signed: `b`.",
    ]


@pytest.mark.parametrize(
    "title",
    ["How to Write Tests", "Installing Rust on Linux, macOS, and Windows", "Fixing Errors",
     "Reference Cycles Can Leak Memory", "`let` Statements", "The `use` keyword of it",
     "What implementing the trait signifies about the type"],
)  # fmt: skip
def test_titles(title: str) -> None:
    assert is_title(title)
    assert not is_title(f"{title}.")


@pytest.mark.parametrize(
    "line",
    ["Opening hours: 9 to 17", "24 months of warranty", "paris is the capital of france",
     "The words of " + "a list that goes on " * 3],
)  # fmt: skip
def test_lines_that_state_something_are_no_titles(line: str) -> None:
    assert not is_title(line)


def test_forms_of_cut_and_announcing_and_title_like_sentences() -> None:
    passages = [
        ["of a sentence cut.", "A whole sentence.", "It looks like this:", "The rest is cut"],
        ["paris is the capital of france"],
        ["Writing Your First Tests", "The line is without its end", "It ends."],
        ["`match` comes from the patterns.", "`if` is simpler."],
        ["The passage of one sentence that is " + "long " * 20],
    ]
    part, whole, title = Form.PART, Form.WHOLE, Form.TITLE
    assert forms(passages) == [
        [part, whole, part, part],
        [whole],
        [title, part, whole],
        [part, whole],
        [part],
    ]


def test_where_no_line_has_a_full_stop_none_is_needed() -> None:
    lines = ["Opening hours: 9 to 17", "The shop is closed on Sundays"]
    assert forms([lines]) == [[Form.WHOLE, Form.WHOLE]]


@pytest.mark.parametrize(
    ("head", "tail", "whole"),
    [
        (
            "The power of `match` comes from the expressiveness of the",
            "`match` comes from the expressiveness of the patterns.",
            "The power of `match` comes from the expressiveness of the patterns.",
        ),
        ("When the operator calls", "When the operator calls it.", "When the operator calls it."),
        ("It keeps the answer short.", "the answer short.", "It keeps the answer short."),
        ("It ends with the compiler", "The compiler starts it.", None),
        ("It ends with the same", "the same is said.", None),
        ("It ends with the compiler", "compiler", None),
        ("It is unthe compiler said", "the compiler said no.", None),
        ("", "", None),
    ],
)
def test_a_sentence_cut_between_overlapping_chunks_is_joined(
    head: str, tail: str, whole: str | None
) -> None:
    assert join(head, tail) == whole


def test_a_joined_sentence_is_bounded() -> None:
    shared = "the words that both of them share"
    whole = join("word " * 60 + shared, shared + " word" * 60)
    assert whole is not None
    assert len(whole) <= MAX_SENTENCE_CHARACTERS


def test_sentences_that_lean_on_the_one_before() -> None:
    assert leans("They’re also more flexible.")
    assert leans("In other words, it holds.")
    assert not leans("Thesis papers are long.")


def test_code_without_fences_is_not_prose() -> None:
    passage = 'fn main() {\n    let x = vec![1, 2];\n    println!("{x:?}");\n}'
    assert split_sentences(passage) == []


@pytest.mark.parametrize(
    ("markdown", "text"),
    [
        ("a fact[12] of note [3].", "a fact of note."),
        ("a fact\\[12\\] of &#91;3&#93; note", "a fact of note"),
        ("see[^1] this[citation needed] text", "see this text"),
        ("![image](x.png) and *this* __that__ snake_case_name", "and this that snake_case_name"),
        (
            "[`Rc<T>`](rc.html) and [ref][r] and <https://x.y/z>",
            "`Rc<T>` and ref and https://x.y/z",
        ),
        ("<b>bold</b> &amp; \\*literal\\*", "bold & *literal*"),
        ("`v[1]` keeps its index", "`v[1]` keeps its index"),
        ("2 * 3 * 4 is no emphasis", "2 * 3 * 4 is no emphasis"),
    ],
)
def test_inline_markup_is_taken_off(markdown: str, text: str) -> None:
    assert plain(markdown) == text


def test_text_without_an_end_is_cut_at_a_space() -> None:
    (sentence,) = split_sentences("word " * 400)
    assert len(sentence) <= MAX_SENTENCE_CHARACTERS
    assert sentence.endswith("word…")


def test_a_sentence_knows_its_place_in_the_source() -> None:
    passage = (
        "# Title here\r\n\r\nThe first **real** one is [here](https://a.b/c). A second\r\n"
        "one wraps.\r\n\r\n[a]: https://a.b\n\n```\nA second one wraps.\n```\n\n"
        "> A quoted one\n> wraps as well.\n\n- item one is said\n  - the nested item\n\n"
        "| Type | Size |\n|---|---|\n| `i32` integers | four bytes |\n"
    )
    found = excerpts(passage, 3)
    assert [excerpt.places[0].passage for excerpt in found] == [3] * 6
    assert [
        (excerpt.text, *(passage[place.start : place.end] for place in excerpt.places))
        for excerpt in found
    ] == [
        ("The first real one is here.", "The first **real** one is [here](https://a.b/c)."),
        ("A second one wraps.", "A second\r\none wraps."),
        ("A quoted one wraps as well.", "A quoted one\n> wraps as well."),
        ("item one is said", "item one is said"),
        ("the nested item", "the nested item"),
        (
            "Type: `i32` integers; Size: four bytes.",
            "| `i32` integers | four bytes |\n",
        ),
    ]


def test_of_a_passage_that_begins_in_code_places_are_right() -> None:
    passage = "The answer is here.\n```\n\nThe answer is here.\n\n```rust\nfn main() {"
    (found,) = excerpts(passage)
    assert [place.start for place in found.places] == [passage.rindex("The answer")]


def test_of_a_sentence_that_is_cut_what_is_shown_is_its_place() -> None:
    (found,) = excerpts("word " * 400)
    (place,) = found.places
    assert found.text.startswith(("word " * 400)[place.start : place.end].strip())


_FRAGMENTS = st.sampled_from(
    ["One is so. ", "Two\nis **so**. ", "> quoted one is so\n", "- an item is so\n", "\n\n",
     "\r\n", "```\n", "    ", "| a b c | d |\n|---|---|\n", "| e f | g |\n", "\t", "[x](y) is so. ",
     "====\n", "\x00", "&amp; is so. ", "[a]: b\n", "1. ", "`co.de` is. "]
)  # fmt: skip


@given(st.lists(_FRAGMENTS, max_size=12).map("".join))
@example("| a b c | d |\n|---|---|\nOne is so. | e f | g |\n")
def test_what_stands_in_its_place_reads_as_the_sentence(passage: str) -> None:
    for excerpt in excerpts(passage):
        for place in excerpt.places:
            assert 0 <= place.start < place.end <= len(passage)
            source = passage[place.start : place.end]
            if "|---" in passage:  # a row names its columns; cells beyond these are not read
                cells = source.strip().removeprefix("|").split("|")[:2]
                assert set(words(plain("|".join(cells)))) <= set(words(excerpt.text))
            else:
                assert words(plain(source)) == words(excerpt.text)


@given(st.text(max_size=300))
def test_any_text_gives_bounded_lines(text: str) -> None:
    for sentence in split_sentences(text):
        assert sentence.strip() == sentence
        assert 0 < len(sentence) <= MAX_SENTENCE_CHARACTERS
        assert len(sentence.split("\n")) == 1


@pytest.mark.parametrize(
    "mark",
    ["*a ", "_a ", "[a](", "![", "<a ", "`a``b```c ", "{{#", ". . ", "A. B", "\\*", "> ", "|a"],
)
def test_nothing_but_marks_is_read_in_time(mark: str) -> None:
    """The square of the length would take minutes at this one."""
    started_s = time.process_time()
    split_sentences(mark * (100_000 // len(mark)))
    assert time.process_time() - started_s < 2
