"""Which sentences make an answer."""

from __future__ import annotations

import numpy as np
import pytest

from generator_worker.engines.base import Passage
from generator_worker.engines.extractive import most_promising, pieces, read_sentences
from generator_worker.prompt import estimate_tokens
from generator_worker.selection import (
    DEFINITION_WEIGHT,
    LEANING_COST,
    Sentence,
    choose,
    content_words,
    form_costs,
    opening_worth,
    overlap,
    relevance,
)
from generator_worker.sentences import Form


def sentence(passage: int, ordinal: int, text: str = "A sentence.") -> Sentence:
    return Sentence(passage, ordinal, text)


def apart(count: int) -> np.ndarray:
    """Vectors that have nothing in common."""
    return np.eye(count, dtype=np.float32)


def scores(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def test_overlap_counts_content_words_and_forgives_endings() -> None:
    wanted = content_words("How does Rust ensure the safety of references?")
    assert len(wanted) == 4
    assert overlap(wanted, "Rust ensures that a reference is safe.") == 3 / 4
    assert overlap(wanted, "How does it do that?") == 0
    assert overlap(content_words("What is it?"), "Anything.") == 0


def test_relevance_is_cosine_plus_a_fifth_of_the_overlap() -> None:
    found = relevance(
        "rust", scores(1, 0), [sentence(0, 0, "Rust."), sentence(0, 1, "No.")],
        np.array([[0.6, 0.8], [1, 0]], dtype=np.float32),
    )  # fmt: skip
    assert found == pytest.approx([0.8, 1.0])


def test_what_is_no_whole_sentence_is_less_relevant() -> None:
    sentences = [Sentence(0, n, "Rust.", form) for n, form in enumerate(Form)]
    found = relevance("rust", scores(1, 0), sentences, np.array([[0.6, 0.8]] * 3, np.float32))
    assert found == pytest.approx([0.8, 0.7, 0.55])


def test_below_the_threshold_nothing_is_chosen() -> None:
    chosen = choose([sentence(0, 0)], scores(0.549), apart(1), most=4, threshold=0.55)
    assert chosen.sentences == ()
    assert chosen.best_score == pytest.approx(0.549)
    assert choose([], scores(), apart(0), most=4, threshold=0.55).sentences == ()


@pytest.mark.parametrize("values", [(0.001, 0.0), (-0.25, -0.9), (-0.001, 0.001)])
def test_however_low_the_threshold_the_best_that_reaches_it_is_chosen(
    values: tuple[float, float],
) -> None:
    sentences = [sentence(0, 0), sentence(40, 0)]
    for threshold in (max(values), -2):
        chosen = choose(sentences, scores(*values), apart(2), most=4, threshold=threshold)
        assert chosen.sentences
        assert chosen.best_score == pytest.approx(max(values))


def test_the_best_comes_first_then_its_passage_as_written() -> None:
    places = [(0, 3), (1, 5), (1, 7), (1, 2), (2, 0)]
    sentences = [sentence(*place) for place in places]
    found = scores(0.85, 0.9, 0.87, 0.88, 0.3)
    chosen = choose(sentences, found, apart(5), most=4, threshold=0.5)
    assert [(s.passage, s.ordinal) for s in chosen.sentences] == [(1, 5), (1, 2), (1, 7), (0, 3)]


def test_the_opening_counts_for_the_first_only_and_only_among_the_best() -> None:
    sentences = [sentence(0, n) for n in range(4)]
    found, first = scores(0.9, 0.85, 0.88, 0.5), scores(0, 0.1, 0, 1)
    chosen = choose(sentences, found, apart(4), most=2, threshold=0.5, opening=first)
    assert [s.ordinal for s in chosen.sentences] == [1, 0]
    assert chosen.best_score == pytest.approx(0.9)


def test_a_definition_opens_the_answer_and_what_leans_does_not() -> None:
    texts = {
        "_A `smart pointer`, in short, is a structure.".strip("_"): DEFINITION_WEIGHT,
        "Rust’s smart pointers are structures.": DEFINITION_WEIGHT,
        "Smart pointers are usually implemented so.": 0,
        "Smart pointer definitions are longer.": 0,
        "They count as smart pointers.": -LEANING_COST,
    }
    sentences = [sentence(0, n, text) for n, text in enumerate(texts)]
    assert opening_worth("What is a smart pointer?", sentences) == pytest.approx([*texts.values()])
    assert opening_worth("Why have pointers?", sentences) == pytest.approx(
        [0, 0, 0, 0, -LEANING_COST]
    )


def test_at_most_so_many() -> None:
    sentences = [sentence(0, n) for n in range(6)]
    chosen = choose(sentences, scores(*[0.9] * 6), apart(6), most=4, threshold=0.5)
    assert len(chosen.sentences) == 4


def test_what_says_the_same_again_is_left_out() -> None:
    vectors = np.array([[1, 0], [0.99, 0.14], [0, 1]], dtype=np.float32)
    sentences = [sentence(0, 0), sentence(1, 0), sentence(2, 0)]
    chosen = choose(sentences, scores(0.9, 0.89, 0.85), vectors, most=4, threshold=0.5)
    assert [s.passage for s in chosen.sentences] == [0, 2]


def test_a_whole_sentence_goes_before_a_part_of_one() -> None:
    part, whole = Sentence(0, 0, "Part.", Form.PART), sentence(0, 3)
    due = scores(0.7, 0.65) - form_costs([part, whole])
    chosen = choose([part, whole], due, apart(2), most=1, threshold=0.5)
    assert chosen.sentences == (whole,)


def test_a_part_is_said_only_where_no_whole_sentence_is_near() -> None:
    part, whole = Sentence(0, 0, "Part.", Form.PART), sentence(0, 3)
    near = choose([part, whole], scores(0.9, 0.8), apart(2), most=4, threshold=0.5)
    assert near.sentences == (whole,)
    far = choose([part, whole], scores(0.9, 0.7), apart(2), most=4, threshold=0.5)
    assert far.sentences == (part,)


def test_a_title_ranks_far_below_a_sentence() -> None:
    title, whole = Sentence(0, 0, "How to Write Tests", Form.TITLE), sentence(0, 3)
    due = scores(0.81, 0.64) - form_costs([title, whole])
    chosen = choose([title, whole], due, apart(2), most=4, threshold=0.55)
    assert chosen.sentences == (whole,)
    alone = choose([title], due[:1], apart(1), most=4, threshold=0.55)
    assert alone.sentences == (title,)


def test_what_is_cut_or_only_announces_is_marked_as_a_part() -> None:
    found = read_sentences(
        [
            Passage("of a sentence cut. A whole sentence. It looks like this: \n\nThe rest is cut"),
            Passage("paris is the capital of france"),
        ]
    )
    part, whole = Form.PART, Form.WHOLE
    assert [s.form for s in found] == [part, whole, part, part, whole]


@pytest.mark.parametrize("order", [1, -1])
def test_a_sentence_cut_between_two_passages_comes_whole_and_once(order: int) -> None:
    passages = [
        Passage("It begins here. The power of it comes from the patterns that"),
        Passage("comes from the patterns that it has. It ends here."),
    ]
    found = read_sentences(passages[::order])
    assert {(s.text, s.form) for s in found} == {
        ("It begins here.", Form.WHOLE),
        ("The power of it comes from the patterns that it has.", Form.WHOLE),
        ("It ends here.", Form.WHOLE),
    }


def test_a_sentence_cut_between_two_passages_stands_in_both() -> None:
    passages = [
        Passage("It begins here. The power of it comes from the **patterns** that"),
        Passage("comes from the **patterns** that it has. It ends here."),
    ]
    (mended,) = (s for s in read_sentences(passages) if s.text.startswith("The power"))
    parts = [passages[place.passage].text[place.start : place.end] for place in mended.places]
    assert parts == [
        "The power of it comes from the **patterns** that",
        "comes from the **patterns** that it has.",
    ]


def test_a_beginning_is_left_out_where_the_whole_is_there() -> None:
    passages = [Passage("When the operator calls"), Passage("When the operator calls, it ends.")]
    found = read_sentences(passages)
    assert [(s.passage, s.text) for s in found] == [(1, "When the operator calls, it ends.")]


def test_a_question_answers_nothing() -> None:
    found = read_sentences([Passage("What is ownership? It is a discipline. “Is that really so?”")])
    assert [s.text for s in found] == ["It is a discipline."]


def test_overlapping_chunks_give_a_sentence_once() -> None:
    passages = [Passage("One thing is so. Shared one here."), Passage("Shared one here.")]
    found = read_sentences(passages)
    assert [(s.passage, s.text) for s in found] == [
        (0, "One thing is so."),
        (0, "Shared one here."),
    ]


def test_with_too_many_those_that_share_words_are_read() -> None:
    sentences = [sentence(0, n, f"Nothing {n}.") for n in range(5)] + [sentence(1, 0, "Rust.")]
    kept = most_promising("Rust?", sentences, 3)
    assert [s.text for s in kept] == ["Nothing 0.", "Nothing 1.", "Rust."]


def test_an_answer_fits_the_callers_limit() -> None:
    sentences = [sentence(0, 0, "word " * 30 + "end."), sentence(1, 0, "Second.")]
    assert pieces(sentences, None) == [f"{sentences[0].text} [1]", " Second. [2]"]
    (cut,) = pieces(sentences, 10)
    assert cut.endswith("… [1]")
    assert estimate_tokens(cut) <= 10 + estimate_tokens("… [1]")
    (only_first,) = pieces(sentences, estimate_tokens(sentences[0].text))
    assert only_first == f"{sentences[0].text} [1]"
