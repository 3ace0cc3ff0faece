"""Names of points: UUIDv5, so that a retry writes the same points and not more of them."""

from __future__ import annotations

import uuid
from typing import Final

_NAMESPACE: Final = uuid.UUID("8a1f5f0e-6f0b-5c51-9c3e-2f3b7d0c9a42")

# The collection's own record.
STAMP_ID: Final = str(uuid.uuid5(_NAMESPACE, "stamp"))


def record_id(document_id: str) -> str:
    """The point that decides which version of a document is the one."""
    return _uuid(document_id, "record")


def source_id(document_id: str, version: str) -> str:
    """The point that holds the source text of one version."""
    return _uuid(document_id, version, "source")


def chunk_id(document_id: str, version: str, ordinal: int) -> str:
    """The point of one chunk of one version."""
    return _uuid(document_id, version, str(ordinal))


def version_ids(document_id: str, version: str, chunks: int) -> list[str]:
    """All points of one version: its source text and its chunks."""
    return [
        source_id(document_id, version),
        *(chunk_id(document_id, version, ordinal) for ordinal in range(chunks)),
    ]


def _uuid(*parts: str) -> str:
    # Document ids hold no control characters, so the parts cannot run into each other.
    return str(uuid.uuid5(_NAMESPACE, "\x00".join(parts)))
