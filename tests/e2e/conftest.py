"""One system for all tests that do not break it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.system import System

BOOKS = [
    {
        "id": "rust/ownership",
        "text": (
            "# Ownership\n\nRust ensures memory safety through a system of ownership that the "
            "compiler checks. Each value has one owner, and when the owner goes out of scope the "
            "value is dropped. No garbage collector runs while the program does.\n"
        ),
        "metadata": {"language": "rust", "chapter": 4},
    },
    {
        "id": "rust/threads",
        "text": (
            "# Fearless concurrency\n\nThreads can exchange messages through channels. A mutex "
            "allows only one thread to access data at any given time.\n"
        ),
        "metadata": {"language": "rust", "chapter": 16},
    },
    {
        "id": "go/garbage",
        "text": "Go frees memory with a concurrent garbage collector, so programmers need not.",
        "metadata": {"language": "go", "chapter": 1},
    },
]


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A running system that holds three small documents."""
    with System(tmp_path_factory.mktemp("data")) as system:
        answer = system.index(*BOOKS)
        assert answer["indexed"] == len(BOOKS)
        yield system
