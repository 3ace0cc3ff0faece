"""Markdown and plain text into sentences."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generator_worker.sentences import MAX_SENTENCE_CHARACTERS, plain, split_sentences


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
        "`i32` integers – four bytes",
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
