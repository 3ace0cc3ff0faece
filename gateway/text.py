"""The one form in which texts are embedded and looked up in a cache."""

from __future__ import annotations

import hashlib
import unicodedata


def normalise(text: str) -> str:
    """NFC, trimmed, every run of whitespace one space.

    What is embedded is exactly this, so two texts that differ in nothing else share
    a vector and a cache key.
    """
    return " ".join(unicodedata.normalize("NFC", text).split())


def text_sha256(text: str) -> str:
    """Hex SHA-256 of the text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()
