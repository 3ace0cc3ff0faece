"""Marks in a streamed text, however it is cut into pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generator_worker.citations import AnswerText


def read(pieces: list[str], passages: int = 2) -> str:
    text = AnswerText(passages)
    out = "".join([*(text.push(piece) for piece in pieces), text.finish()])
    assert out == text.text
    return out


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("Rust is safe [1]. It is [1, 2][2].", "Rust is safe [1]. It is [1, 2][2]."),
        ("A [7]. B [1, 9] c [2][3] d [0].", "A. B [1] c [2] d."),
        ("[[ ## answer ## ]]\nHello [1]\n\n[[ ## completed ## ]]\n", "Hello [1]"),
        ("Use `v[9]`, w[9] and\n```\nlet a = [10];\n```\nnow [10].",
         "Use `v[9]`, w[9] and\n```\nlet a = [10];\n```\nnow."),
        ("Rust is safe[7]. It's fast[9][1], since 1.70[7] it\u2019s well-known[1, 9].",
         "Rust is safe. It's fast[1], since 1.70 it\u2019s well-known[1]."),
        ("Take to_list[7], os.path[8], rows()[9] or x[7]; the U.S.[7] (of America[7]) too.",
         "Take to_list[7], os.path[8], rows()[9] or x[7]; the U.S. (of America) too."),
        ("a [9][9] b", "a b"),
        ("[1] first, [ ] todo, [x](u), [[wiki]], [", "[1] first, [ ] todo, [x](u), [[wiki]], ["),
        ("  spaced \n\n text  ", "spaced \n\n text"),
        ("", ""),
    ],
)  # fmt: skip
def test_marks(written: str, shown: str) -> None:
    assert read([written]) == shown
    assert read(list(written)) == shown


@given(
    st.lists(
        st.sampled_from(
            ["a", "is", "_", ".", " ", "[", "]", "1", "9", ",", "`", "[[ ## ", "x ## ]]"]
        )
    )
)
def test_pieces_do_not_matter_beyond_space(pieces: list[str]) -> None:
    whole, cut = read(["".join(pieces)]), read(pieces)
    assert "".join(whole.split()) == "".join(cut.split())


def test_a_citation_without_a_space_streams_too() -> None:
    text = AnswerText(2)
    assert text.push("Rust is safe") == "Rust is safe"
    assert text.push("[7") == ""
    assert text.push("].") == "."


def test_text_is_not_held_back_longer_than_needed() -> None:
    text = AnswerText(2)
    assert text.push("Hello") == "Hello"
    assert text.push(" ") == ""
    assert text.push("[1") == ""
    assert text.push("]") == " [1]"
    assert text.push(" world") == " world"
