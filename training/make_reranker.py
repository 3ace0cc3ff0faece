"""From the data to the reranker's file and card: trains, examines, writes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from encoders.adapters import write_adapter
from training import queries
from training.card import Card, table, write_card
from training.examine_reranker import RERANKED, Figures, examine_reranker
from training.loop import TOLD_EVERY
from training.nearest import BASE
from training.options import Options
from training.reranker import (
    LEARNING_RATE,
    MAX_TOKENS,
    RANK,
    TEMPERATURE,
    Reranker,
    load_reranker,
    train_reranker,
)
from training.source import source_of
from training.squad import Parts, read_paragraphs, split

log = logging.getLogger(__name__)

NAME: Final = "production-rag/reranker"
STEPS: Final = 1000
EXAMINED_QUESTIONS: Final = 500

_ABOUT: Final = """\
Scores passages against a query by late interaction: each token of the query finds the passage's
token that fits best (ColBERT's MaxSim), and a linear map of the query's token states says how much
each of them counts. Low-rank matrices for every linear map of the base's layers, added to its
weights when it is loaded."""
_FAILURES: Final = (
    "It knows English alone; other languages, code and tables were never read.",
    "It was trained on questions, keywords and sentences about Wikipedia's articles. What it does "
    "for other collections is in the figures: on some it changes little.",
    "Query and passage have at most 256 tokens each: the end of a longer one is not read.",
    "It compares tokens. That a passage says the opposite, or the same of somebody else, it hardly "
    "sees.",
)


def make(options: Options) -> Path:
    """Trains (or goes on), examines on held-out articles, and writes file and card.

    Returns the path of the adapter. Raises ValueError as `train_reranker` does.
    """
    parts = split(read_paragraphs(options.squad_file))
    steps = options.steps or STEPS
    log.info("%d steps of the reranker; %d take about half an hour on two cores", steps, STEPS)
    reranker, losses = train_reranker(
        parts, options.folder, steps=steps, seed=options.seed, device=options.device
    )
    path = write_reranker(reranker, options.output)
    figures = _examined(reranker, parts, options)
    given = [file.read_text().strip() for file in options.figures]
    write_card(path, _card(options, steps, losses, [figures, *given]))
    return path


def examined(options: Options) -> str:
    """Figures of the reranker in the work folder's checkpoint, in Markdown; nothing is written.

    Raises FileNotFoundError when there is none.
    """
    parts = split(read_paragraphs(options.squad_file))
    reranker, steps = load_reranker(options.folder, options.device)
    log.info("examines the reranker after %d steps", steps)
    return _examined(reranker, parts, options)


def write_reranker(reranker: Reranker, folder: Path) -> Path:
    """Writes `reranker.safetensors` into the folder, which is made; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "reranker.safetensors"
    tensors = {name: tensor.detach().cpu().numpy() for name, tensor in reranker.trained()}
    write_adapter(path, tensors, kind="late_interaction", base=BASE)
    return path


def _examined(reranker: Reranker, parts: Parts, options: Options) -> str:
    figures = examine_reranker(
        reranker, parts.calibration, options.folder, questions=EXAMINED_QUESTIONS
    )
    return figures_table(figures)


def figures_table(figures: Figures) -> str:
    """The figures in Markdown."""
    return table(
        f"The right passage among the {RERANKED} nearest, {figures.questions:,} questions about "
        "articles it was not trained on; `python -m training reranker` measures this",
        ("order", "right passage first", "MRR"),
        [
            ("of the base's vectors", f"{figures.found_first:.3f}", f"{figures.found_mrr:.3f}"),
            ("of the reranker", f"{figures.first:.3f}", f"{figures.mrr:.3f}"),
        ],
    )


def _card(options: Options, steps: int, losses: list[float], figures: list[str]) -> Card:
    settings = {
        "steps": f"{steps:,} of {queries.STEP_QUERIES} queries, each against its own passage, "
        f"{queries.LIKE} like it, and those of the other queries",
        "queries": f"questions; {queries.KEYWORDS:.0%} their keywords, {queries.SENTENCES:.0%} "
        f"sentences of the passage, {queries.TAKEN_OUT:.0%} of them taken out of it",
        "rank": str(RANK),
        "temperature": f"{TEMPERATURE:g}, of means of cosines",
        "optimiser": f"AdamW, highest learning rate {LEARNING_RATE:g}, cosine, gradient norm 1",
        "precision": "base in bfloat16, adapters in float32",
        "query, passage": f"{MAX_TOKENS} tokens each at most",
        "seed": str(options.seed),
    }
    source = source_of(options)
    command = f"python -m training reranker --steps {steps} --seed {options.seed}{source.argument}"
    return Card(
        NAME,
        _ABOUT,
        source.licence,
        [source.data],
        {**settings, **source.settings},
        losses,
        TOLD_EVERY,
        figures,
        _FAILURES,
        command,
    )
