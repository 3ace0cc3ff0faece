"""What an adapter was trained on, as its card says it: SQuAD, or data of one's own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from training.card import SQUAD, Data
from training.options import Options


@dataclass(frozen=True, slots=True)
class Source:
    """licence: of the adapter. argument: what names the data in the command that rebuilds it,
    after a space; empty for SQuAD. settings: rows for the card."""

    data: Data
    licence: str
    argument: str
    settings: Mapping[str, str]


def source_of(options: Options) -> Source:
    """Reads the whole file, for its SHA-256."""
    digest = hashlib.sha256(options.squad_file.read_bytes()).hexdigest()
    settings = {"SHA-256 of the data": f"`{digest}`"}
    if options.own_data is None:
        return Source(SQUAD, "CC-BY-SA-4.0, as the data it was trained on", "", settings)
    name = options.own_data.name
    data = Data(name, "Data of one's own", "not known here", "", SQUAD.use)
    return Source(data, "as the data's", f" --data {name}", settings)
