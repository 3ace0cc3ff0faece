"""What reranking brings: the same passages in the order of retrieval, of rerankers, and at best.

Each collection is indexed and asked once, through the API. Then each reranker scores the same
passages: a worker of its own over gRPC, as the gateway calls it, and the gateway's own function
fuses its scores with the ranks of retrieval (`RERANK_FUSION_K`). So rerankers differ in nothing
but their scores, and no collection is indexed twice. The shipped reader stands for trained
cross-encoders; it scores in this process.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
import uvloop

from bench import cross_encoder, worker
from bench.candidates import Candidates, retrieve
from bench.contestants import MODEL
from bench.datasets import CHOICES, COLLECTIONS
from bench.flood import score_all
from bench.options import Options
from bench.quality import Quality, committed, p_text, quality_of, regressions
from bench.reference import Computed, QueryPassages
from bench.report import Report, Table, Target, number
from bench.retrieval import MEASURES
from bench.significance import paired_p
from gateway.fusion import fuse
from gateway.settings import GatewaySettings
from generator_worker.settings import GeneratorSettings
from reranker_worker.settings import RerankerSettings

NAMES: Final = (*COLLECTIONS, "rust-book", *CHOICES)
# The fewest documents of each kind.
QUICK: Final = ("cacm", "wikiqa")
CROSS_ENCODER: Final = f"{cross_encoder.READER}, as a cross-encoder"
RETRIEVAL: Final = "retrieval order"
BEST: Final = "best order"
# The row that is held to the committed figures: whatever reranks unless it is told otherwise.
GUARDED: Final = "default reranking"
GAP_TO_CLOSE: Final = 0.2
# Below, a difference is hardly luck.
SIGNIFICANT: Final = 0.05
NDCG: Final = "nDCG@10"
TOP_3: Final = "success@3"


@dataclass(frozen=True, slots=True)
class Scored:
    """scores: of each question, one per passage; seconds: for all, one question after another."""

    scores: list[list[float]]
    seconds: float


@dataclass(frozen=True, slots=True)
class Measured:
    """One collection.

    characters: of all its passages.
    orders: name of an order → its quality, RETRIEVAL and BEST among them.
    """

    questions: int
    passages: int
    characters: int
    orders: dict[str, Quality]

    def gap_closed(self, order: str) -> float:
        """Share of the way in nDCG@10 from retrieval's order to the best one; 0 where they are
        equal, negative where the order is worse than retrieval's."""
        base, best, now = (self.orders[name].means[NDCG] for name in (RETRIEVAL, BEST, order))
        return (now - base) / (best - base) if best > base else 0.0

    def p(self, order: str) -> float:
        """p of the paired test of nDCG@10 against retrieval's order."""
        return paired_p(self.orders[order].questions, self.orders[RETRIEVAL].questions)

    def top_3_change(self, order: str) -> float:
        """Relative change of the share of questions with a relevant document among three."""
        return self.orders[order].means[TOP_3] / self.orders[RETRIEVAL].means[TOP_3] - 1


def run(options: Options) -> Report:
    """Retrieves every collection, then starts one reranker after another."""
    policy = GatewaySettings(_env_file=None)
    default = RerankerSettings(_env_file=None).reranker_model
    models = dict.fromkeys(options.rerankers or usual(default))
    names = QUICK if options.quick else NAMES
    asked = {name: retrieve(options.data, name, policy.rerank_candidates) for name in names}
    scored = {model: score(model, asked) for model in models}
    if not options.rerankers:
        scored[CROSS_ENCODER] = score_by_reader(asked)
    measured = {
        name: measure(
            questions,
            {model: found[name].scores for model, found in scored.items()},
            policy.rerank_fusion_k,
        )
        for name, questions in asked.items()
    }
    by_default = default if policy.rerank_fusion == "off" else fused(default)
    cost_ms = {
        model: {name: one.seconds * 1000 / len(asked[name]) for name, one in found.items()}
        for model, found in scored.items()
    }
    return report(measured, by_default, cost_ms)


def usual(default: str) -> tuple[str, ...]:
    """The models to try: the base of the shipped one, untrained, and the default."""
    return tuple(dict.fromkeys([MODEL, default]))


def fused(model: str) -> str:
    """The name of the order in which its ranks are fused with retrieval's."""
    return f"{model}, fused"


def score(model: str, asked: Mapping[str, Sequence[Candidates]]) -> dict[str, Scored]:
    """The scores of a worker that runs the model, by collection."""
    with worker.running("reranker_worker", reranker_model=model) as running:
        return {name: _score(running.target, questions) for name, questions in asked.items()}


def score_by_reader(asked: Mapping[str, Sequence[Candidates]]) -> dict[str, Scored]:
    """The scores of the shipped reader, by collection."""
    settings = GeneratorSettings(_env_file=None, reader_model=cross_encoder.READER)
    questions = {name: _pairs(of_one) for name, of_one in asked.items()}
    computed = uvloop.run(cross_encoder.score_collections(questions, settings))
    return {name: _scored(asked[name], found) for name, found in computed.items()}


def _score(target: str, asked: Sequence[Candidates]) -> Scored:
    # One call at a time: its time is then that of a question which finds the worker free.
    return _scored(asked, uvloop.run(score_all(target, _pairs(asked), 1)))


def _pairs(asked: Sequence[Candidates]) -> list[QueryPassages]:
    return [QueryPassages(one.query, one.passages) for one in asked]


def _scored(asked: Sequence[Candidates], computed: Computed) -> Scored:
    ends = np.cumsum([len(one.passages) for one in asked])
    parts = np.split(computed.values, ends[:-1])
    return Scored([part.tolist() for part in parts], computed.seconds)


def measure(
    asked: Sequence[Candidates], scores: Mapping[str, Sequence[Sequence[float]]], fusion_k: int
) -> Measured:
    """The quality of every order of the candidates.

    scores: model → of each question, a score per passage.
    """
    orders = {
        RETRIEVAL: _quality(asked, [range(len(one.passages)) for one in asked]),
        BEST: _quality(asked, [one.best_order for one in asked]),
    }
    for model, of_questions in scores.items():
        for name, k in ((model, None), (fused(model), fusion_k)):
            ordered = [
                [at for at, _ in fuse(values, one.documents, k)]
                for values, one in zip(of_questions, asked, strict=True)
            ]
            orders[name] = _quality(asked, ordered)
    texts = [text for one in asked for text in one.passages]
    return Measured(len(asked), len(texts), sum(map(len, texts)), orders)


def _quality(asked: Sequence[Candidates], orders: Sequence[Sequence[int]]) -> Quality:
    rankings = [one.ranking(order) for one, order in zip(asked, orders, strict=True)]
    return quality_of(
        {
            name: [of(ranking, one.grades) for ranking, one in zip(rankings, asked, strict=True)]
            for name, of in MEASURES.items()
        }
    )


def report(
    measured: Mapping[str, Measured], by_default: str, cost_ms: Mapping[str, Mapping[str, float]]
) -> Report:
    """by_default: the order that the gateway takes by default, where it was measured.

    cost_ms: model → collection → mean time to score a question's passages.
    """
    orders = next(iter(measured.values())).orders
    tables = [_table(name, found) for name, found in measured.items()]
    tables += [_summary(measured, [o for o in orders if o not in (RETRIEVAL, BEST)])]
    tables += [_cost(measured, cost_ms)]
    guarded, targets = {}, []
    if by_default in orders:
        guarded = {name: {GUARDED: found.orders[by_default]} for name, found in measured.items()}
        targets = _targets(measured, by_default)
    figures: dict[str, Any] = {
        "collections": msgspec.to_builtins(measured),
        "gap_closed": {
            order: {name: found.gap_closed(order) for name, found in measured.items()}
            for order in orders
        },
        "cost_ms": msgspec.to_builtins(cost_ms),
        "quality": msgspec.to_builtins(guarded),
    }
    return Report(figures, tables, targets, regressions(guarded, committed()))


def _table(name: str, found: Measured) -> Table:
    columns = (
        "order", NDCG, "p, retrieval", "gap closed", TOP_3, "change of top 3", "MRR",
    )  # fmt: skip
    rows: list[tuple[str, ...]] = []
    for order, quality in found.orders.items():
        compared = (
            p_text(found.p(order)),
            f"{found.gap_closed(order):+.0%}",
            f"{found.top_3_change(order):+.1%}",
        )
        p, gap, change = ("", "", "") if order == RETRIEVAL else compared
        ndcg, top_3, mrr = (f"{quality.means[one]:.3f}" for one in (NDCG, TOP_3, "MRR"))
        rows.append((order, ndcg, p, gap, top_3, change, mrr))
    return Table(f"{name}: {found.questions} questions", columns, rows)


def _summary(measured: Mapping[str, Measured], orders: Sequence[str]) -> Table:
    sets = measured.values()
    rows: list[tuple[str, ...]] = []
    for order in orders:
        gains = [one.gap_closed(order) for one in sets]
        certain = [one.gap_closed(order) for one in sets if one.p(order) < SIGNIFICANT]
        rows.append(
            (
                order,
                f"{statistics.fmean(one.orders[order].means[NDCG] for one in sets):.3f}",
                f"{statistics.fmean(gains):+.0%}",
                f"{sum(gain > 0 for gain in gains)} ({sum(gain > 0 for gain in certain)})",
                f"{sum(gain < 0 for gain in gains)} ({sum(gain < 0 for gain in certain)})",
                f"{statistics.fmean(one.top_3_change(order) for one in sets):+.1%}",
            )
        )
    return Table(
        f"Mean of {len(measured)} collections",
        ("order", NDCG, "gap closed", "better on (p < .05)", "worse on (p < .05)",
         "change of top 3"),
        rows,
    )  # fmt: skip


def _cost(measured: Mapping[str, Measured], cost_ms: Mapping[str, Mapping[str, float]]) -> Table:
    """A column per collection: passages differ in number and length, and times with them."""
    sizes = [
        f"{name}: {one.passages / one.questions:.0f} × {one.characters / one.passages:.0f}"
        for name, one in measured.items()
    ]
    return Table(
        "Mean ms to score a question's passages (their number × characters of each), one "
        "question after another",
        ("reranker", *sizes),
        [
            (model, *(number(of_one[name]) for name in measured))
            for model, of_one in cost_ms.items()
        ],
    )


def _targets(measured: Mapping[str, Measured], order: str) -> list[Target]:
    closed = statistics.fmean(found.gap_closed(order) for found in measured.values())
    mean = Target("mean share of the gap closed", closed, GAP_TO_CLOSE, at_most=False)
    return [mean] + [
        Target(
            f"nDCG@10 of default reranking less that of retrieval on {name}",
            found.orders[order].means[NDCG] - found.orders[RETRIEVAL].means[NDCG],
            0.0,
            at_most=False,
        )
        for name, found in measured.items()
    ]
