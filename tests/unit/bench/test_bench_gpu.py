"""What the measurement on a GPU does that needs none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bench import gpu
from bench.gpu_reference import batches_by_length
from bench.options import Options
from bench.reference import Computed
from bench.turns import Course, Turn


def course(name: str, *seconds: float) -> Course:
    vector = np.array([[0, 1] if name == "ours" else [1, 1]], np.float32)
    return Course(name, [Turn(Computed(vector, each), 0, 0) for each in seconds])


def part() -> gpu.Part[str]:
    return gpu.Part(
        faults={"sentence-transformers encode, flash": "ImportError: no package"},
        courses=[
            course("sentence-transformers encode, fp32", 8, 8),
            course("sentence-transformers encode, bf16", 4, 4),
            course("ours", 1, 1),
        ],
    )


def test_without_a_gpu_it_says_so_and_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as ended:
        gpu.run(Options(Path("/nowhere")))
    assert ended.value.code in (None, 0)
    assert capsys.readouterr().out == "no CUDA device: not run\n"


def test_texts_need_no_data(tmp_path: Path) -> None:
    texts = gpu.texts(tmp_path, 1000)
    assert len(texts) == 1000
    assert max(map(len, texts)) <= gpu.CHUNK_SIZE
    assert len(set(texts)) > 50


def test_questions_ask_by_the_words_of_their_texts() -> None:
    texts = [f"one two three {number}" for number in range(40)]
    asked = gpu.questions(texts, 3)
    assert [question.query for question in asked] == texts[:3]
    assert [len(question.passages) for question in asked] == [30, 30, 30]
    assert asked[1].passages[:2] == (texts[30], texts[31])


def test_ratios_are_to_the_first_and_to_their_best() -> None:
    # 1,000 tokens in 2 s at 1 MFLOP each are 0.5 GFLOP/s of 10.
    table = gpu.embedding_table(part(), "a GPU", 1000, 1e6, {"fp32": 1.0, "bf16": 10.0})
    assert table.rows[2] == ("ours", "8.00", "4.00", "500", "5.0%", "0.292893")
    assert table.rows[3] == (
        "sentence-transformers encode, flash: not run here", "-", "-", "-", "-", "-",
    )  # fmt: skip
    assert gpu.reranking_table(part(), "a GPU", 300).rows[2] == ("ours", "8.00", "4.00", "150")


def test_batches_are_of_like_lengths_within_the_budget() -> None:
    assert batches_by_length([8, 64, 16, 64, 8, 500], 128) == [[5], [1, 3], [2, 0, 4]]
    assert batches_by_length([], 128) == []
