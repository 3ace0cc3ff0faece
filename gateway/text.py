"""The one form in which texts are embedded and cached."""

from __future__ import annotations

import unicodedata


def normalise(text: str) -> str:
    """Unicode NFC, white space folded to single spaces and trimmed.

    Texts that differ in nothing else mean the same to the model, and share one vector.
    """
    if not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
    return " ".join(text.split())
