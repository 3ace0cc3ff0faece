"""Late interaction and cross-encoders: what they learn, and what they are examined by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.training import paragraphs, pool_and_near, tiny_cross_encoder, tiny_late_interaction
from torch import nn

from encoders.adapters import LowRank, read_adapter
from encoders.late_interaction import max_sim as served_max_sim
from encoders.location import locate, read_header
from training.cross_encoder import OTHERS, READER, new_cross_encoder
from training.late_interaction import SHARE, max_sim, rarity
from training.late_interaction_recipe import LateInteractionRecipe
from training.loop import TOLD_EVERY, Schedule, train
from training.padding import by_length
from training.queries import LIKE, Asked, Queries
from training.reranked import figures


def test_scores_are_those_of_serving() -> None:
    torch.manual_seed(1)
    asked = torch.nn.functional.normalize(torch.randn(1, 5, 8), dim=-1)
    read = torch.nn.functional.normalize(torch.randn(3, 7, 8), dim=-1)
    content = torch.ones(3, 7)
    content[1, 4:] = 0
    content[:, 0] = 0
    scores = max_sim(asked, torch.ones(1, 5), read, content)[0].numpy()
    served = served_max_sim(
        asked[0].numpy(), np.ones(5, np.float32), read.numpy(), content.numpy().astype(bool)
    )
    assert np.allclose((1 + scores) / 2, served, atol=1e-6)


def test_a_token_without_weight_says_nothing() -> None:
    torch.manual_seed(1)
    asked, read, content = torch.randn(1, 2, 4), torch.randn(2, 3, 4), torch.ones(2, 3)
    first = max_sim(asked[:, :1], torch.ones(1, 1), read, content)
    assert torch.allclose(max_sim(asked, torch.tensor([[2.0, 0.0]]), read, content), first)


def test_a_query_without_a_word_is_no_nan() -> None:
    asked, read = torch.randn(1, 2, 4), torch.randn(3, 2, 4)
    assert max_sim(asked, torch.zeros(1, 2), read, torch.ones(3, 2)).tolist() == [[0, 0, 0]]


def test_texts_are_read_with_others_of_their_length_and_given_back_in_their_order() -> None:
    # In place of encodings: rows of a number, of several lengths.
    given: Any = [[at] * size for at, size in enumerate((5, 1, 4, 2, 3))]
    lengths: list[list[int]] = []

    def first(rows: Sequence[Any]) -> torch.Tensor:
        lengths.append([len(row) for row in rows])
        return torch.tensor([row[0] for row in rows])

    assert by_length(given, 2, first).tolist() == [0, 1, 2, 3, 4]
    assert lengths == [[1, 2], [3, 4], [5]]


def test_other_passages_of_its_paragraph_are_neither_right_nor_wrong(tmp_path: Path) -> None:
    tiny = tiny_late_interaction(tmp_path)
    passages = ["The house is red.", "The house is old."]
    losses = [
        tiny.loss([Asked("Which house?", passages[0], 7, ((paragraph, passages[1]),))]).item()
        for paragraph in (7, 8)
    ]
    assert losses[0] == 0
    assert losses[1] > 0


def test_rare_words_count_more() -> None:
    weights = rarity(30_522)
    the, of, cat, special = weights[[1996, 1997, 4937, 101]]
    assert 0 < special == the < of < cat
    assert (weights > 0).all()


def test_a_part_of_what_was_learnt_is_kept_and_words_are_weighed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = tiny_late_interaction(tmp_path)
    monkeypatch.setattr("training.recipe.BASE", str(tmp_path / "base"))
    with torch.no_grad():
        for _, parameter in tiny.trained():
            parameter.fill_(0.5)
    recipe = LateInteractionRecipe()
    recipe.finish(tiny)
    read = read_adapter(read_header(recipe.write(tiny, tmp_path)))
    for low_rank in read.maps.values():
        assert np.allclose(low_rank.up, 0.5 * SHARE, atol=1e-3)
        assert np.allclose(low_rank.down, 0.5)
    assert read.word_weights is not None
    assert np.array_equal(read.word_weights, tiny.word_weights.numpy())


def test_a_cross_encoder_compares_the_right_passage_with_wrong_ones(tmp_path: Path) -> None:
    pool, near = pool_and_near(paragraphs(articles=8))
    batch = Queries(pool, near, seed=1)(0)[:4]
    tiny = tiny_cross_encoder(tmp_path)
    wrong = 0.0
    for at, row in enumerate(batch):
        others = [batch[(at + step) % 4].passage for step in range(1, OTHERS + 1)]
        read = [row.passage, *(text for _, text in row.like), *others]
        assert len(read) == 1 + LIKE + OTHERS
        wrong += float(-torch.log_softmax(tiny.scores(row.query, read), 0)[0])
    assert tiny.loss(batch).item() == pytest.approx(wrong / 4, rel=2e-2)


def test_adapters_go_on_from_others(tmp_path: Path) -> None:
    tiny = tiny_cross_encoder(tmp_path)
    shapes = {name: parameter.shape for name, parameter in tiny.bert.trained()}
    maps = {
        name.removesuffix(".lora_down"): LowRank(
            np.full(shape, 0.5, np.float32),
            np.full(shapes[name.replace("lora_down", "lora_up")], 0.25, np.float32),
        )
        for name, shape in shapes.items()
        if name.endswith(".lora_down")
    }
    tiny.bert.start_from(maps)
    for name, parameter in tiny.bert.trained():
        assert (parameter == (0.5 if name.endswith(".lora_down") else 0.25)).all()
        assert isinstance(parameter, nn.Parameter)
        assert parameter.requires_grad


def test_a_cross_encoder_begins_with_what_the_shipped_reader_has_learnt() -> None:
    reader = locate(READER).adapter
    assert reader is not None
    maps = read_adapter(reader).maps
    begun = dict(new_cross_encoder().bert.trained())
    assert {name.rpartition(".")[0] for name in begun} == set(maps)
    for name, learnt in maps.items():
        assert np.array_equal(begun[f"{name}.lora_up"].detach().numpy(), learnt.up)


class InOrder:
    """Scores passages by their place, the first highest or the last."""

    def __init__(self, *, backwards: bool) -> None:
        self._step = 1.0 if backwards else -1.0

    def scores(self, query: str, passages: Sequence[str]) -> torch.Tensor:
        return self._step * torch.arange(len(passages))


def test_figures_are_of_the_order_that_scores_make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = tuple(paragraphs(articles=8))
    near = pool_and_near(list(given))[1]
    monkeypatch.setattr("training.reranked.nearest", lambda *_: near)
    kept = figures(InOrder(backwards=False), given, tmp_path, questions=16)
    turned = figures(InOrder(backwards=True), given, tmp_path, questions=16)
    assert kept.questions == turned.questions > 0
    assert (kept.first, kept.mrr) == (kept.found_first, kept.found_mrr)
    assert (turned.found_first, turned.found_mrr) == (kept.found_first, kept.found_mrr)
    assert turned.mrr != kept.mrr


def test_a_short_training_run_of_late_interaction_improves_the_loss(tmp_path: Path) -> None:
    few = Queries(*pool_and_near(paragraphs(articles=8)), seed=1)(0)[:4]
    losses = train(
        tiny_late_interaction(tmp_path),
        lambda _: few,
        Schedule(2 * TOLD_EVERY, 1e-2),
        tmp_path / "run",
        made_with={"seed": 1},
    )
    assert losses[-1] < 0.8 * losses[0]


def test_a_short_training_run_of_a_cross_encoder_improves_the_loss(tmp_path: Path) -> None:
    # The same few queries over and over: random weights need long to learn to compare words.
    few = Queries(*pool_and_near(paragraphs(articles=8)), seed=1)(0)[:4]
    losses = train(
        tiny_cross_encoder(tmp_path),
        lambda _: few,
        Schedule(3 * TOLD_EVERY, 1e-2),
        tmp_path / "run",
        made_with={"seed": 1},
    )
    assert losses[-1] < 0.8 * losses[0]
