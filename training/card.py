"""Model cards: beside every adapter's file a page that says what it is, and of which file.

After Mitchell et al., "Model Cards for Model Reporting" (2019).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# Adapters are told by the file's bytes: SHA-256, in hexadecimal.
_NAMED = re.compile(r"^\| SHA-256 of the file \| `([0-9a-f]{64})` \|$", re.MULTILINE)
# Rows of the table of losses at most.
_LOSS_ROWS: Final = 12


@dataclass(frozen=True, slots=True)
class Data:
    """What an adapter was trained on.

    name: with its version. citation: who made it. licence: its name, in SPDX's short form where
        there is one. url: of the licence's text, or
        empty. use: what was done with the data.
    """

    name: str
    citation: str
    licence: str
    url: str
    use: str


SQUAD: Final = Data(
    name="SQuAD 1.1, training part",
    citation="Pranav Rajpurkar, Jian Zhang, Konstantin Lopyrev and Percy Liang, "
    '"SQuAD: 100,000+ Questions for Machine Comprehension of Text" (2016); its paragraphs are '
    "from Wikipedia, by its authors",
    licence="CC-BY-SA-4.0",
    url="https://creativecommons.org/licenses/by-sa/4.0/",
    use="paragraphs were cut into passages, and questions paired with passages of other paragraphs",
)

_BASE: Final = (
    "The base was trained before, by its authors, on 1.17 billion pairs of texts; its card lists "
    "87,599 of SQuAD among them, questions with paragraphs. What is held out below was held out "
    "of the adapter alone."
)


@dataclass(frozen=True, slots=True)
class Card:
    """What a card says that the adapter's file does not.

    name: by which settings name the adapter. about: what it is and does, a paragraph.
    licence: of the adapter. settings: of the training. losses: means of each `loss_steps` steps.
    figures: tables in Markdown. failures: sentences. command: rebuilds file and card.
    """

    name: str
    about: str
    licence: str
    data: Sequence[Data]
    settings: Mapping[str, str]
    losses: Sequence[float]
    loss_steps: int
    figures: Sequence[str]
    failures: Sequence[str]
    command: str


def write_card(adapter: Path, card: Card) -> Path:
    """Writes the card beside the adapter's file, with its fingerprint; returns the card's path.

    Raises OSError when there is no such file, KeyError when it does not name its base.
    """
    made_over = _metadata(adapter)
    file = table(
        "The file",
        ("", ""),
        [
            ("Name", f"`{card.name}`"),
            ("Kind", made_over["kind"]),
            ("Base", f"{made_over['base']} (Apache-2.0)"),
            ("Fingerprint of the base", f"`{made_over['base_fingerprint']}`"),
            ("File", f"`{adapter.name}`, {adapter.stat().st_size:,} bytes"),
            ("SHA-256 of the file", f"`{_digest(adapter)}`"),
            ("Licence", card.licence),
        ],
    )
    sections = {
        "Data": "\n".join(_line(one) for one in card.data) + f"\n\n{_BASE}",
        "Training": table("Settings", ("setting", "value"), list(card.settings.items()))
        + "\n\n"
        + _losses(card),
        "Figures": "\n\n".join(card.figures),
        "Known failures": "\n".join(f"- {failure}" for failure in card.failures),
        "Rebuild": f"```sh\n{card.command}\n```",
    }
    text = "\n\n".join(
        [f"# {card.name}", card.about, file, *(f"## {key}\n\n{sections[key]}" for key in sections)]
    )
    path = adapter.with_suffix(".md")
    path.write_text(text + "\n")
    return path


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, with its title in bold above it."""
    rule = ["---"] * len(columns)
    lines = (f"| {' | '.join(row)} |" for row in (columns, rule, *rows))
    return "\n".join((f"**{title}**", "", *lines))


def faults(folder: Path) -> list[str]:
    """What does not fit between the adapters in the folder and their cards, a line each.

    Nothing when every `*.safetensors` has a card of its name that names its SHA-256, and every
    card is of such a file; README.md is no card.
    """
    adapters = {path.stem: path for path in folder.glob("*.safetensors")}
    cards = {path.stem: path for path in folder.glob("*.md") if path.stem != "README"}
    found = [f"{adapters[stem].name} has no card" for stem in sorted(adapters.keys() - cards)]
    found += [f"{cards[stem].name} is of no file" for stem in sorted(cards.keys() - adapters)]
    for stem in sorted(adapters.keys() & cards):
        named = _NAMED.findall(cards[stem].read_text())
        if named != [_digest(adapters[stem])]:
            found.append(f"{cards[stem].name} is of another file than {adapters[stem].name}")
    return found


def _line(data: Data) -> str:
    licence = f"[{data.licence}]({data.url})" if data.url else data.licence
    return f"- **{data.name}**. {data.citation}. Licence: {licence}. Changes: {data.use}."


def _losses(card: Card) -> str:
    """About a dozen means over even parts of the training."""
    part = max(1, -(-len(card.losses) // _LOSS_ROWS))
    rows = []
    for first in range(0, len(card.losses), part):
        means = card.losses[first : first + part]
        steps = f"{first * card.loss_steps + 1:,} to {(first + len(means)) * card.loss_steps:,}"
        rows.append((steps, f"{sum(means) / len(means):.3f}"))
    return table("Mean loss, in nats", ("steps", "loss"), rows)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _metadata(adapter: Path) -> dict[str, str]:
    """What a safetensors file says of itself: its header is JSON, its length in 8 bytes before."""
    with adapter.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    metadata: dict[str, str] = header["__metadata__"]
    return metadata
