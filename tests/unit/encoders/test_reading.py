"""Readers: rows of question and passage, what a model makes of them, and the best span."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.adapters import tiny_adapter, tiny_tensors
from support.models import MINILM, TEXTS, exports, tiny_encoder

from encoders.adapters import HEAD_BIAS, HEAD_WEIGHT, merge
from encoders.encoder import Encoder, Floats
from encoders.identity import fingerprint
from encoders.location import locate, trained
from encoders.options import BackendName, Precision, Runtime
from encoders.reading import (
    MAX_SPAN_TOKENS,
    PassageReader,
    Read,
    Span,
    best_span,
    load_passage_reader,
)
from encoders.self_check import (
    GOLDEN,
    SENTENCE,
    SelfCheckFailedError,
    check_reading,
    logits_of,
)
from encoders.self_check import QUESTION as SELF_CHECK_QUESTION
from encoders.tokenizing import PairTokenizer

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
    pytest.mark.usefixtures("exports_made_here"),
]

QUESTION = "How does Rust ensure memory safety?"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_adapter(tmp_path_factory.mktemp("reader") / "tiny.safetensors", base, "reader")


def load(
    adapter: Path, backend: BackendName = "torch", precision: Precision = "fp32"
) -> PassageReader:
    return load_passage_reader(str(adapter), Runtime(backend, precision, 2, exports()))


@pytest.fixture(scope="module")
def reader(adapter: Path) -> PassageReader:
    return load(adapter)


def read(reader: PassageReader, passages: list[str], question: str = QUESTION) -> list[Read]:
    return reader.read(reader.prepare(question, passages))


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_logits_are_the_heads_over_the_adapted_states(
    base: Path, adapter: Path, backend: BackendName
) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    tensors = tiny_tensors("reader")
    bert = AutoModel.from_pretrained(base).eval()
    merge(locate(str(adapter)), bert)
    tokenizer = AutoTokenizer.from_pretrained(base)
    reader = load(adapter, backend)
    assert reader.description.endswith("2 threads, reader")
    assert (reader.identity.dimension, reader.identity.max_tokens) == (0, 48)
    check_reading(reader)
    readings = reader.prepare(QUESTION, TEXTS)
    assert [reading.truncated for reading in readings] == [False] * 4 + [True] * 2
    for text, reading, found in zip(TEXTS, readings, reader.read(readings), strict=True):
        row = tokenizer(
            QUESTION, text, truncation="only_second", max_length=48, return_tensors="pt"
        )
        assert reading.tokens.ids.tolist() == row["input_ids"][0].tolist()
        with torch.inference_mode():
            states = bert(**row).last_hidden_state[0].numpy()
        logits = states @ tensors[HEAD_WEIGHT].T + tensors[HEAD_BIAS]
        # [SEP] is the last.
        np.testing.assert_allclose(found.begins, logits[reading.first : -1, 0], atol=1e-4)
        np.testing.assert_allclose(found.ends, logits[reading.first : -1, 1], atol=1e-4)
        assert found.nothing == pytest.approx(logits[0].sum(), abs=1e-4)
        assert found.begins.dtype == np.float32
    reader.close()


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_bf16_reads_about_the_same(
    adapter: Path, reader: PassageReader, backend: BackendName
) -> None:
    coarse = load(adapter, backend, "bf16")
    check_reading(coarse)
    for exact, found in zip(read(reader, TEXTS), read(coarse, TEXTS), strict=True):
        np.testing.assert_allclose(found.begins, exact.begins, atol=0.1)
        np.testing.assert_allclose(found.ends, exact.ends, atol=0.1)


def test_rows_of_several_questions_share_a_batch(reader: PassageReader) -> None:
    mine, theirs = (reader.prepare(asked, TEXTS) for asked in (QUESTION, "What is a crab?"))
    together = reader.read([row for pair in zip(mine, theirs, strict=True) for row in pair])
    for alone, found in zip(reader.read(theirs), together[1::2], strict=True):
        np.testing.assert_allclose(found.begins, alone.begins, atol=1e-5)
        assert found.ranges is alone.ranges


def test_numbers_that_are_none_are_an_error(
    reader: PassageReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Encoder, "run", lambda _, batch: np.full((len(batch), 48, 2), np.nan, np.float32)
    )
    with pytest.raises(FloatingPointError):
        read(reader, TEXTS)


@pytest.fixture(scope="module")
def tokenizer() -> PairTokenizer:
    serialised = (locate(MINILM).folder / "tokenizer.json").read_text()
    return PairTokenizer(serialised, max_tokens=32)


def test_places_are_characters_whatever_they_are_made_of(tokenizer: PairTokenizer) -> None:
    text = "The  crab 🦀🦀 na\u0131\u0308ve Größe, 東京 cafe\u0301 and 한국."
    (pair,) = tokenizer.encode("Where?", [text])
    pieces = [text[start:end] for start, end in pair.ranges]
    for word in ("The", "crab", "🦀🦀", "東", "京", "and", "."):
        assert word in pieces
    # Accents go with their letter, and what is one character may be several tokens.
    assert text[pair.ranges[0, 0] : pair.ranges[-1, 1]] == text
    assert "".join(pieces).count("한") > 1
    starts, ends = pair.ranges.T
    assert (np.diff(starts) >= 0).all()
    assert (np.diff(ends) >= 0).all()
    assert (starts < ends).all()


def test_the_end_of_the_passage_is_what_is_cut(tokenizer: PairTokenizer) -> None:
    whole, cut, nothing = tokenizer.encode("who is it", ["a b", "a " * 40, ""])
    assert (len(whole.tokens), whole.first, whole.tokens.truncated) == (8, 5, False)
    assert (len(cut.tokens), len(cut.ranges), cut.tokens.truncated) == (32, 26, True)
    assert cut.ranges[-1].tolist() == [50, 51]
    assert cut.tokens.type_ids.tolist() == [0] * 5 + [1] * 27
    assert (len(nothing.tokens), nothing.ranges.shape) == (6, (0, 2))


def test_a_question_of_any_length_leaves_room_for_the_passage(tokenizer: PairTokenizer) -> None:
    (pair,) = tokenizer.encode("who " * 500, ["a b c " * 40])
    assert len(pair.tokens) == 32
    assert (pair.first, len(pair.ranges)) == (16, 15)
    assert pair.tokens.truncated


def test_more_passages_than_a_slice_keep_their_order(tokenizer: PairTokenizer) -> None:
    passages = ["a " * count for count in range(1, 71)]
    pairs = tokenizer.encode("who", passages)
    assert [len(pair.ranges) for pair in pairs] == [min(count, 28) for count in range(1, 71)]


@st.composite
def reads(draw: st.DrawFn) -> Read:
    """Tokens in order, some of the same character, with gaps; logits that are often equal."""
    steps = draw(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4)), max_size=70))
    ranges: list[tuple[int, int]] = []
    at = 0
    for gap, length in steps:
        same = gap == 3 and ranges
        start, end = ranges[-1] if same else (at + gap, at + gap + length)
        ranges.append((start, end))
        at = end
    logits = st.lists(
        st.integers(-8, 8).map(float), min_size=len(ranges), max_size=len(ranges)
    ).map(lambda row: np.array(row, np.float32))
    nothing = float(draw(st.integers(-8, 8)))
    return Read(draw(logits), draw(logits), nothing, np.array(ranges, np.int64).reshape(-1, 2))


def plain_best_span(read: Read, start: int, end: int) -> Span | None:
    best: Span | None = None
    for i, (begin, _) in enumerate(read.ranges.tolist()):
        for j, (_, finish) in enumerate(read.ranges.tolist()):
            if not (i <= j < i + MAX_SPAN_TOKENS and start <= begin and finish <= end):
                continue
            score = float(read.begins[i] + read.ends[j]) - read.nothing
            if best is None or score > best.score:
                best = Span(begin, finish, score)
    return best


@given(reads(), st.integers(0, 200), st.integers(0, 200))
def test_the_best_span_is_that_of_a_plain_search(read: Read, start: int, end: int) -> None:
    assert best_span(read, start, end) == plain_best_span(read, start, end)


def test_of_a_part_that_was_cut_off_there_is_no_span(reader: PassageReader) -> None:
    text = "word " * 100
    (found,) = read(reader, [text])
    assert best_span(found, 0, len(text)) is not None
    assert best_span(found, 300, len(text)) is None
    (empty,) = read(reader, [""])
    assert best_span(empty, 0, 10) is None


@pytest.fixture
def golden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("encoders.self_check.GOLDEN", tmp_path)
    return tmp_path


def test_a_reader_that_is_known_must_read_what_is_stored(
    reader: PassageReader, golden: Path
) -> None:
    (found,) = read(reader, [SENTENCE], SELF_CHECK_QUESTION)
    stored = golden / f"{reader.identity.fingerprint}.npy"
    np.save(stored, logits_of(found))
    check_reading(reader)
    np.save(stored, logits_of(found) + np.float32(0.1))
    with pytest.raises(SelfCheckFailedError, match=r"a logit is 0.1000 off the stored one"):
        check_reading(reader)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda logits: logits + len(logits), "depends on what else is in its batch"),
        (lambda logits: logits * 0, "every token of a passage is the same"),
    ],
)
def test_a_reader_that_reads_nonsense_fails_the_self_check(
    reader: PassageReader,
    monkeypatch: pytest.MonkeyPatch,
    wrong: Callable[[Floats], Floats],
    message: str,
) -> None:
    run = Encoder.run
    monkeypatch.setattr(Encoder, "run", lambda self, batch: wrong(run(self, batch)))
    with pytest.raises(SelfCheckFailedError, match=message):
        check_reading(reader)


@pytest.mark.parametrize("name", [*trained(), MINILM])
def test_every_model_that_comes_with_this_version_is_known_to_the_self_check(name: str) -> None:
    files = locate(name)
    kind = "late_interaction" if files.adapter is None else files.adapter.kind
    assert (GOLDEN / f"{fingerprint(files, kind=kind)}.npy").is_file(), "see scripts/golden.py"
