"""A figure that falls by more than .01 fails the command; anything less does not."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench import __main__ as command
from bench import quality, reading, reranked
from bench.options import Options
from bench.quality import GATED, Quality, change, commit, committed, p_text, regressions
from bench.report import Report, Table
from bench.retrieval import HYBRID, MEASURES, MODES, Measured, _report

QUESTIONS = [0.2, 0.9, 0.4, 0.5]


def made(**means: float) -> Quality:
    values = dict.fromkeys(MEASURES, 0.5) | {
        name.replace("_at_", "@"): value for name, value in means.items()
    }
    return Quality(values, QUESTIONS)


def gated(quality: Quality) -> Quality:
    """As it is committed."""
    means = {name: mean for name, mean in quality.means.items() if name in GATED}
    return Quality(means, quality.questions)


BEFORE = {
    "cranfield": {"dense": gated(made()), HYBRID: gated(made())},
    "cisi": {HYBRID: gated(made())},
}


OF_RANKINGS = tuple(measure for measure in GATED if measure in MEASURES)


@pytest.mark.parametrize("measure", OF_RANKINGS)
def test_each_gated_measure_of_each_row_is_guarded(measure: str) -> None:
    worse = made(**{measure: 0.4895})
    [line] = regressions({"cranfield": {"dense": made(), HYBRID: worse}}, BEFORE)
    assert line.startswith(f"cranfield, hybrid: {measure} fell from 0.500 to 0.48")
    barely = made(**{measure: 0.4901})
    assert regressions({"cranfield": {HYBRID: barely}}, BEFORE) == []
    assert regressions({"cranfield": {HYBRID: made(**{measure: 0.6})}}, BEFORE) == []


def test_other_measures_are_only_shown() -> None:
    assert regressions({"cisi": {HYBRID: made(**{"success@3": 0.0})}}, BEFORE) == []


def test_a_row_that_nothing_guards_is_a_failure() -> None:
    assert "no committed figures" in regressions({"cacm": {HYBRID: made()}}, BEFORE)[0]
    assert "no committed figures" in regressions({"cisi": {"dense": made()}}, BEFORE)[0]


def test_committed_figures_come_back_rounded(tmp_path: Path) -> None:
    path = tmp_path / "quality.json"
    assert committed(path) == {}
    found = {"cisi": {HYBRID: Quality({**made().means, "MRR": 0.123456}, [1 / 3, 1.0])}}
    commit(found, path)
    read = committed(path)
    assert read["cisi"][HYBRID].means == {"nDCG@10": 0.5, "recall@50": 0.5, "MRR": 0.1235}
    assert read["cisi"][HYBRID].questions == [0.3333, 1.0]
    assert regressions(found, read) == []
    # A line for each mode: a change can be read in a diff.
    assert len(path.read_text().splitlines()) == 5


def test_the_figures_of_this_repository_are_whole() -> None:
    figures = committed()
    assert {"cranfield", "cisi", "cacm", "rust-book"} <= set(figures)
    for name in ("cranfield", "cisi", "cacm", "rust-book"):
        modes = {mode: found for mode, found in figures[name].items() if mode in MODES}
        assert tuple(modes) == MODES
        listed = [found for found in modes.values() if found.questions]
        assert len({len(found.questions) for found in listed}) == 1
        for found in modes.values():
            assert set(found.means) == set(OF_RANKINGS)
            assert all(0 < mean < 1 for mean in found.means.values())
        for found in listed:
            assert_mean_of_its_questions(found, "nDCG@10")


def test_default_reranking_is_guarded_on_every_collection() -> None:
    figures = committed()
    assert len(reranked.NAMES) == 6
    for name in reranked.NAMES:
        found = figures[name][reranked.GUARDED]
        assert set(found.means) == set(OF_RANKINGS)
        # 1 where a question has no more candidates than are looked at.
        assert all(0 < mean <= 1 for mean in found.means.values())
        assert_mean_of_its_questions(found, "nDCG@10")


def test_answers_of_the_reader_are_guarded() -> None:
    found = committed()[reading.SQUAD][reading.SPAN]
    assert set(found.means) == {"token F1", "in the sentence", "abstained"} <= set(GATED)
    assert all(0 < mean <= 1 for mean in found.means.values())
    assert len(found.questions) == reading.QUESTIONS
    assert_mean_of_its_questions(found, "token F1")


def assert_mean_of_its_questions(found: Quality, measure: str) -> None:
    """Whoever edits the file by hand forgets one of the two."""
    assert found.questions
    mean = sum(found.questions) / len(found.questions)
    assert found.means[measure] == pytest.approx(mean, abs=0.0002)


def test_change_is_told_where_the_questions_are_the_same() -> None:
    better = Quality({"nDCG@10": 0.51}, [value + 0.01 for value in QUESTIONS])
    difference, p = change(better, made())
    assert difference == "+0.010"
    assert float(p) == pytest.approx(2 / 2**4, abs=0.01)
    assert change(better, None) == ("", "")
    assert change(better, Quality({"nDCG@10": 0.5}, QUESTIONS[:3])) == ("+0.010", "")
    assert [p_text(p) for p in (1.0, 0.5, 0.04, 0.0001)] == ["1", ".500", ".040", "<.001"]


def measured(hybrid: Quality) -> dict[str, Measured]:
    modes = {mode: made() for mode in MODES} | {HYBRID: hybrid}
    return {"cisi": Measured(10, 40, len(QUESTIONS), modes, {5: 3.5, 10: 6.25})}


def test_the_report_fails_by_the_committed_figures_alone() -> None:
    before = {"cisi": {mode: gated(made()) for mode in MODES}}
    good = _report(measured(made()), {}, before)
    assert good.failures == []
    # A target that is missed is no regression.
    low = {"cisi": {mode: Quality({**made().means, "nDCG@10": 0.3}, []) for mode in MODES}}
    assert not all(t.met for t in _report(measured(made(**{"nDCG@10": 0.3})), {}, low).targets)
    assert _report(measured(made(**{"nDCG@10": 0.3})), {}, low).failures == []
    assert "3.50" in good.text()
    bad = _report(measured(made(MRR=0.4)), {}, before)
    assert len(bad.failures) == 1
    other_chunking = _report(measured(made(MRR=0.4)), {"chunk_size": 2048}, {})
    assert other_chunking.failures == []


@pytest.mark.parametrize("failures", [[], ["cisi, hybrid: MRR fell"]])
def test_the_command_exits_1_when_a_measurement_failed(
    failures: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Fake:
        def run(self, options: Options) -> Report:
            return Report({}, [Table("made up", ("a",), [("b",)])], [], failures)

    monkeypatch.setitem(sys.modules, "bench.made_up", Fake())
    monkeypatch.setitem(command.MEASUREMENTS, "made-up", "made_up")
    monkeypatch.setattr(command, "data_folder", lambda **_: tmp_path)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("bench.report.RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["bench", "made-up"])
    if not failures:
        command.main()
        return
    with pytest.raises(SystemExit) as ended:
        command.main()
    # A text as exit code: Python prints it to stderr and exits 1.
    assert failures[0] in str(ended.value.code)
    assert (tmp_path / "made-up.json").exists()


@pytest.mark.parametrize(
    ("figures", "message"), [(None, "no results"), ({"chunking": {"overlap": 0}}, "overlap")]
)
def test_only_a_full_run_of_the_defaults_is_committed(
    figures: dict[str, Any] | None, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(quality, "RESULTS", tmp_path)
    monkeypatch.setattr(quality, "COMMITTED", tmp_path / "quality.json")
    if figures is not None:
        (tmp_path / "retrieval.json").write_text(json.dumps({"figures": figures}))
    with pytest.raises(SystemExit, match=message):
        quality.main()
    assert not (tmp_path / "quality.json").exists()


def test_the_last_runs_are_committed_together(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(quality, "RESULTS", tmp_path)
    monkeypatch.setattr(quality, "COMMITTED", tmp_path / "quality.json")
    commit({"cisi": {"dense": made(), HYBRID: made(MRR=0.9)}}, tmp_path / "quality.json")
    runs = {
        "retrieval": {"chunking": {}, "quality": {"cisi": {HYBRID: made(MRR=0.6)}}},
        "reranked": {"quality": {"cisi": {"reranked": made()}, "wikiqa": {"reranked": made()}}},
        "reading": {"quality": {"squad": {"read": Quality({"token F1": 0.7}, [0.7])}}},
    }
    for name, figures in runs.items():
        whole = json.dumps({"figures": msgspec.to_builtins(figures)})
        (tmp_path / f"{name}.json").write_text(whole)
    quality.main()
    read = committed(tmp_path / "quality.json")
    assert {name: list(modes) for name, modes in read.items()} == {
        "cisi": ["dense", HYBRID, "reranked"],
        "wikiqa": ["reranked"],
        "squad": ["read"],
    }
    assert read["cisi"][HYBRID].means["MRR"] == 0.6
    assert read["squad"]["read"].means == {"token F1": 0.7}
    worse = {"squad": {"read": Quality({"token F1": 0.68}, [0.68])}}
    assert len(regressions(worse, read)) == 1
