"""The bounds of a batch by what the backend can take."""

from __future__ import annotations

import pytest

from encoders.settings import EmbeddingSettings, EncoderSettings, ModelSettings


@pytest.mark.parametrize("settings", [EncoderSettings, EmbeddingSettings])
@pytest.mark.parametrize(("tokens", "rows"), [(8, 1), (1024, 64), (65_536, 512)])
def test_short_questions_fill_a_batch_as_far_as_they_are_chosen_quickly(
    settings: type[ModelSettings], tokens: int, rows: int
) -> None:
    limits = settings(_env_file=None).limits(tokens)
    assert (limits.batch_tokens, limits.batch_items) == (tokens, rows)
    assert limits.window_items >= limits.batch_items


def test_a_batch_that_is_set_goes_before_the_fastest() -> None:
    limits = EncoderSettings(
        _env_file=None, max_batch_tokens=320, bulk_share=0.3, bulk_quantum_seconds=0.5,
        queue_tokens=2048, max_model_failures=7,
    ).limits(65_536)  # fmt: skip
    assert (limits.batch_tokens, limits.batch_items) == (320, 20)
    assert (limits.bulk_share, limits.bulk_quantum_s) == (0.3, 0.5)
    assert (limits.queue_tokens, limits.max_failures) == (2048, 7)
