"""What the ledger allows, and that the checks can fail."""

from __future__ import annotations

import pytest
from chaos.checks import uncovered
from chaos.ledger import Content, Ledger, Write

ONE, TWO, THREE = (Content("text", mark) for mark in (1, 2, 3))


def ledger(*writes: tuple[Content | None, float, float, bool]) -> Ledger:
    kept = Ledger()
    for content, started_s, ended_s, acknowledged in writes:
        kept.add(Write("a", content, started_s, ended_s, acknowledged, ""))
    return kept


def test_one_writer_leaves_the_last_acknowledged_and_what_came_after() -> None:
    done = (ONE, 0, 1, True), (TWO, 2, 3, False), (THREE, 4, 5, True)
    assert ledger(*done).possible("a") == {THREE}
    assert ledger(*done, (None, 6, 7, False), (ONE, 8, 9, False)).possible("a") == {
        THREE,
        None,
        ONE,
    }


def test_what_ended_before_an_acknowledged_write_began_is_gone() -> None:
    assert ledger((ONE, 0, 1, False), (None, 2, 3, True)).possible("a") == {None}


def test_two_writers_leave_the_outcome_of_every_order() -> None:
    side_by_side = (ONE, 0, 2, True), (TWO, 1, 3, True)
    assert ledger(*side_by_side).possible("a") == {ONE, TWO}
    assert ledger(*side_by_side, (THREE, 2.5, 4, False)).possible("a") == {ONE, TWO, THREE}
    assert ledger(*side_by_side, (THREE, 3, 4, True)).possible("a") == {THREE}


def test_a_settled_document_is_what_was_found_until_it_is_written() -> None:
    kept = ledger((ONE, 0, 1, True), (None, 2, 3, False))
    kept.settle("a", None)
    assert kept.possible("a") == {None}


@pytest.mark.parametrize(
    ("chunks", "fault"),
    [
        (["one two", "three"], None),
        (["one two", "two three"], None),
        (["one", "three"], "no chunk holds ' two '"),
        (["one two"], "no chunk holds ' three'"),
        (["three", "one two"], "no chunk holds 'one two '"),
        (["one two", "four"], "a chunk not of this text: 'four'"),
    ],
)
def test_a_torn_document_is_seen(chunks: list[str], fault: str | None) -> None:
    assert uncovered("one two three", chunks) == fault
