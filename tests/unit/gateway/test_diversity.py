"""What is shown of many passages: some of each document, and no text twice."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.diversity import diverse, looked_at


@dataclass(frozen=True)
class Passage:
    document_id: str
    text: str


def of(names: str) -> list[Passage]:
    """A passage of its own text for each letter, which names the document."""
    return [Passage(name, f"text {position}") for position, name in enumerate(names)]


def shown(names: str, limit: int, per_document: int) -> str:
    return "".join(passage.document_id for passage in diverse(of(names), limit, per_document))


@pytest.mark.parametrize(
    ("names", "limit", "per_document", "expected"),
    [
        ("aaaaabcd", 5, 2, "aabcd"),
        ("aaaaabcd", 5, 1, "aabcd"),  # one more of a, because there are four documents
        ("aabbaacc", 5, 2, "aabbc"),
        ("aaaaaa", 4, 2, "aaaa"),  # nothing else is left
        ("abaaaa", 4, 2, "abaa"),
        ("aaab", 9, 1, "aaab"),
        ("aaab", 3, 0, "aaa"),  # off
        ("", 5, 2, ""),
    ],
)
def test_a_document_has_its_share_and_more_only_where_nothing_else_is_left(
    names: str, limit: int, per_document: int, expected: str
) -> None:
    assert shown(names, limit, per_document) == expected


def test_a_text_is_shown_once_however_many_documents_hold_it() -> None:
    copies = [Passage("a", "one two"), Passage("b", " one\ttwo"), Passage("c", "one two")]
    other = Passage("d", "three")
    assert diverse([*copies, other], 2, 3) == [copies[0], other]
    # Repeated texts come last of what fills up, after more of a document.
    more = [Passage("d", "four"), Passage("d", "five")]
    assert diverse([*copies, other, *more], 3, 1) == [copies[0], other, more[0]]
    assert diverse(copies, 2, 3) == copies[:2]
    assert diverse([*copies, other], 2, 0) == copies[:2]


passages = st.lists(
    st.builds(Passage, st.sampled_from("abcd"), st.sampled_from(["p", "q", "r", "s", "t", "u"])),
    max_size=30,
)


@given(passages, st.integers(0, 12), st.integers(0, 4))
def test_order_stays_and_nothing_is_held_back(
    found: list[Passage], limit: int, per_document: int
) -> None:
    numbered = [Passage(one.document_id, f"{one.text}") for one in found]
    chosen = diverse(numbered, limit, per_document)
    assert len(chosen) == min(limit, len(found))
    positions = [
        next(at for at, one in enumerate(numbered) if one is passage) for passage in chosen
    ]
    assert positions == sorted(set(positions))


@given(passages, st.integers(1, 12), st.integers(1, 4))
# What a full document has no room for is new where another one brings it.
@example([Passage("b", "p"), Passage("b", "q"), Passage("b", "r"), Passage("a", "r")], 2, 1)
def test_the_share_is_exceeded_only_when_all_that_is_new_is_shown(
    found: list[Passage], limit: int, per_document: int
) -> None:
    chosen = diverse(found, limit, per_document)
    left_out = [one for one in found if not any(one is other for other in chosen)]
    documents = [one.document_id for one in chosen]
    texts = [one.text for one in chosen]
    over = any(documents.count(name) > per_document for name in documents)
    repeats = len(set(texts)) < len(texts)
    for one in left_out:
        is_new = one.text not in texts
        has_room = documents.count(one.document_id) < per_document
        assert not (is_new and repeats)
        assert not (is_new and has_room and over)


@pytest.mark.parametrize(("shown", "expected"), [(5, 15), (50, 150), (100, 200), (200, 200)])
def test_more_is_looked_at_than_shown_within_a_bound(shown: int, expected: int) -> None:
    assert looked_at(shown, 3) == expected
    assert looked_at(shown, 0) == shown
