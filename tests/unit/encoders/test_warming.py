"""What is computed before there are callers."""

from __future__ import annotations

import pytest

from encoders.encoder import warm_up_lengths


@pytest.mark.parametrize(
    ("longest", "count"), [(8, 1), (48, 6), (256, 32), (510, 64), (512, 64), (514, 65), (8192, 68)]
)
def test_lengths_are_few_whatever_the_model_reads(longest: int, count: int) -> None:
    lengths = warm_up_lengths(longest)
    assert len(lengths) == len(set(lengths)) == count
    assert lengths == sorted(lengths)
    assert lengths[-1] == longest
