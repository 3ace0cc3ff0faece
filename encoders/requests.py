"""Checks of what callers send, the same for every worker that reads texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from encoders.identity import ModelIdentity
from runtime.errors import Reason, ServiceError

MAX_TEXTS: Final = 1024


# Trailing metadata of an answer: milliseconds a call waited for the model, and those from its
# first batch's beginning to its last one's end. What else it took is the way there and back.
QUEUE_MS: Final = "rag-queue-ms"
MODEL_MS: Final = "rag-model-ms"


def timings(queue_s: float, model_s: float) -> tuple[tuple[str, str], tuple[str, str]]:
    """The trailing metadata that tells them."""
    return (QUEUE_MS, f"{queue_s * 1000:.3f}"), (MODEL_MS, f"{model_s * 1000:.3f}")


def invalid(field: str, rule: str) -> ServiceError:
    """The error of one field."""
    return ServiceError(Reason.INVALID_ARGUMENT, f"{field} {rule}.", field=field)


def too_long(field: str, max_tokens: int) -> ServiceError:
    """The error of a text that may not be cut and must be."""
    return ServiceError(
        Reason.TEXT_TOO_LONG,
        f"{field} is longer than the {max_tokens} tokens that the model reads.",
        field=field,
        max_tokens=str(max_tokens),
    )


def require_texts(field: str, texts: Sequence[str], max_text_bytes: int) -> None:
    """1..1024 texts, each fit to read. Raises ServiceError INVALID_ARGUMENT."""
    if not 1 <= len(texts) <= MAX_TEXTS:
        raise invalid(field, f"must hold 1 to {MAX_TEXTS} texts, not {len(texts)}")
    for index, text in enumerate(texts):
        require_text(f"{field}[{index}]", text, max_text_bytes)


def require_text(field: str, text: str, max_text_bytes: int) -> None:
    """Not empty and not too large. Raises ServiceError INVALID_ARGUMENT."""
    if not text or text.isspace():
        raise invalid(field, "must not be empty")
    # A character takes 1 to 4 bytes: most texts need no encoding to be judged.
    if len(text) * 4 > max_text_bytes and len(text.encode()) > max_text_bytes:
        raise invalid(field, f"must not be longer than {max_text_bytes} bytes")


def require_fingerprint(expected: str, identity: ModelIdentity) -> None:
    """The model the caller counts on, or any. Raises ServiceError MODEL_MISMATCH."""
    if expected and expected != identity.fingerprint:
        raise ServiceError(
            Reason.MODEL_MISMATCH,
            f"This worker holds {identity.name} with the fingerprint {identity.fingerprint}, "
            f"not {expected}.",
            expected_fingerprint=expected,
            fingerprint=identity.fingerprint,
            model=identity.name,
        )
