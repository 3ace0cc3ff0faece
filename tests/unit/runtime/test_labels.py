"""What people read of a model."""

import pytest

from runtime.labels import model_label


@pytest.mark.parametrize(
    "name", ["sentence-transformers/all-MiniLM-L6-v2", "all-MiniLM-L6-v2", "a/b/all-MiniLM-L6-v2"]
)
def test_a_model_is_shown_by_the_last_part_of_its_name(name: str) -> None:
    assert model_label(name, "3e518fec855a9b6f") == "all-MiniLM-L6-v2@3e518fec"
