"""From the data to the reader's file and card: trains, examines, writes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from encoders.adapters import write_adapter
from training import examples
from training.card import Card, table, write_card
from training.examine import Figures, examine
from training.loop import TOLD_EVERY
from training.nearest import BASE
from training.options import Options
from training.reader import (
    CYCLES,
    LEARNING_RATE,
    MAX_TOKENS,
    RANK,
    Reader,
    load_reader,
    train_reader,
)
from training.source import source_of
from training.squad import read_paragraphs, split

log = logging.getLogger(__name__)

NAME: Final = "production-rag/reader"
# Three passes over SQuAD: two hours on two cores that multiply bfloat16.
STEPS: Final = 6600
EXAMINED_QUESTIONS: Final = 1000

_ABOUT: Final = """\
Reads a question together with a passage and says where in the passage the answer stands, or that
it stands not there: two logits for each token, that the answer begins and that it ends there; the
first token stands for "not in this passage". Low-rank matrices for every linear map of the base's
layers, added to its weights when it is loaded, and a linear map of its token states."""
_FAILURES: Final = (
    "It knows English alone, and the style of Wikipedia; other languages, code and tables were "
    "never read.",
    "It was asked for short spans (names, numbers, phrases): of an answer that is a list, a reason "
    "or a procedure it marks a part. It never says yes or no.",
    "What it takes for unanswered are questions asked of other paragraphs. A passage about the "
    "right thing that lacks the answer, written to mislead, may be marked all the same.",
    "A span has at most 30 tokens, and question and passage together at most 256: the end of a "
    "longer passage is not read.",
    "It does not compute, compare passages or join facts of several sentences.",
    "In training an answer was looked for word for word: passages that give it in other words were "
    "called unanswering, and so were 0.3 % of those that give it in another case.",
)


def make(options: Options) -> Path:
    """Trains (or goes on), examines on held-out articles, and writes file and card.

    Returns the path of the adapter. Raises ValueError as `train_reader` does.
    """
    parts = split(read_paragraphs(options.squad_file))
    steps = options.steps or STEPS
    log.info("%d steps of the reader; %d take an hour on two cores with bfloat16", steps, STEPS)
    reader, losses = train_reader(
        parts, options.folder, steps=steps, seed=options.seed, device=options.device
    )
    path = write_reader(reader, options.output)
    log.info("examines it on %d questions about held-out articles", EXAMINED_QUESTIONS)
    figures = figures_table(examine(reader, parts.calibration, questions=EXAMINED_QUESTIONS))
    given = [file.read_text().strip() for file in options.figures]
    questions = sum(len(paragraph.questions) for paragraph in parts.training)
    write_card(path, _card(options, steps, questions, losses, [figures, *given]))
    return path


def examined(options: Options) -> str:
    """Figures of the reader in the work folder's checkpoint, in Markdown; nothing is written.

    Raises FileNotFoundError when there is none.
    """
    parts = split(read_paragraphs(options.squad_file))
    reader, steps = load_reader(options.folder, options.device)
    log.info("examines the reader after %d steps", steps)
    return figures_table(examine(reader, parts.calibration, questions=EXAMINED_QUESTIONS))


def write_reader(reader: Reader, folder: Path) -> Path:
    """Writes `reader.safetensors` into the folder, which is made; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "reader.safetensors"
    tensors = {name: tensor.detach().cpu().numpy() for name, tensor in reader.trained()}
    write_adapter(path, tensors, kind="reader", base=BASE)
    return path


def figures_table(figures: Figures) -> str:
    """The figures in Markdown."""
    rows = (
        ("F1 of the marked span, right paragraph given", figures.f1),
        ("exact match, right paragraph given", figures.exact),
        ("span in a sentence that holds the answer", figures.sentences),
        ("right paragraphs in which a span is marked", figures.answered),
        ("other paragraphs of the article in which none is", figures.refused_near),
        ("paragraphs of other articles in which none is", figures.refused_far),
        ("AUC, right paragraph over another of the article", figures.auc_near),
        ("AUC, right paragraph over one of another article", figures.auc_far),
    )
    return table(
        f"The reader by itself, {figures.questions:,} questions about articles it was not trained "
        "on; `python -m training reader` measures this",
        ("figure", "value"),
        [(name, f"{value:.3f}") for name, value in rows],
    )


def _card(
    options: Options, steps: int, questions: int, losses: list[float], figures: list[str]
) -> Card:
    settings = {
        "questions": f"{questions:,}, each drawn anew in every pass",
        "steps": f"{steps:,} of at most {examples.STEP_TOKENS:,} tokens",
        "rank": str(RANK),
        "optimiser": f"AdamW, highest learning rate {LEARNING_RATE:g}, a cosine in each of "
        f"{CYCLES} cycles, gradient norm 1",
        "precision": "base in bfloat16, adapters in float32",
        "question and passage": f"{MAX_TOKENS} tokens at most",
        "asked of a passage that answers": f"{examples.ANSWERED:.0%}; the others are asked of one "
        f"that does not, {examples.NEAR:.0%} of them of one like it",
        "seed": str(options.seed),
    }
    source = source_of(options)
    command = f"python -m training reader --steps {steps} --seed {options.seed}{source.argument}"
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
