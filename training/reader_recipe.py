"""How the reader is made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Final

from training.card import table
from training.examine import Figures, examine
from training.examples import ANSWERED, NEAR, STEP_TOKENS, WHOLE_PARAGRAPHS, Examples
from training.nearest import Indices, Pool
from training.reader import MAX_TOKENS, RANK, Reader, new_reader
from training.recipe import Recipe
from training.squad import Parts

LEARNING_RATE: Final = 1e-3
CYCLES: Final = 2
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


class ReaderRecipe(Recipe[Reader]):
    """Examples of questions and passages, and the reader's own loss."""

    name = "reader"
    kind = "reader"
    # Three passes over SQuAD: two hours on two cores that multiply bfloat16.
    steps = 6600
    learning_rate = LEARNING_RATE
    cycles = CYCLES
    made_with: ClassVar = {
        "rank": RANK,
        "most_tokens": MAX_TOKENS,
        "step_tokens": STEP_TOKENS,
        "answered": ANSWERED,
        "whole_paragraphs": WHOLE_PARAGRAPHS,
        "near": NEAR,
    }
    about = _ABOUT
    failures = _FAILURES

    def new(self, device: str) -> Reader:
        return new_reader(device)

    def batches(self, pool: Pool, near: Indices, seed: int) -> Examples:
        return Examples(pool, near, seed)

    def examine(self, task: Reader, parts: Parts, folder: Path) -> str:
        return figures_table(examine(task, parts.calibration, questions=EXAMINED_QUESTIONS))

    def settings(self, parts: Parts, steps: int) -> Mapping[str, str]:
        questions = sum(len(paragraph.questions) for paragraph in parts.training)
        return {
            "questions": f"{questions:,}, each drawn anew in every pass",
            "steps": f"{steps:,} of at most {STEP_TOKENS:,} tokens",
            "rank": str(RANK),
            "optimiser": f"AdamW, highest learning rate {LEARNING_RATE:g}, a cosine in each of "
            f"{CYCLES} cycles, gradient norm 1",
            "question and passage": f"{MAX_TOKENS} tokens at most",
            "asked of a passage that answers": f"{ANSWERED:.0%}; the others are asked of one that "
            f"does not, {NEAR:.0%} of them of one like it",
        }


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
