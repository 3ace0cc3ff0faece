"""`scripts/setup`, which makes .venv: what it says when something is missing, and when it resumes.

A shell script stands in for Python, so that nothing is downloaded.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from support.fake_processes import ROOT

FAKE_PYTHON = """#!/bin/sh
case "$*" in
*"version_info < "*) [ ! -e old ] ;;
*"version_info[:2]"*) echo 3.12 ;;
*"import venv"*) [ ! -e no-venv ] ;;
"-m venv --clear .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python && echo venv >>calls ;;
"-m pip --version") ;;
*) echo "${*#-m pip --disable-pip-version-check }" >>calls && [ ! -e broken ] ;;
esac
"""


class Checkout:
    """A copy of the files that the script reads, and a PATH on which we decide."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "checkout"
        self.tools = folder / "bin"
        (self.folder / "scripts").mkdir(parents=True)
        self.tools.mkdir()
        shutil.copy(ROOT / "scripts" / "setup", self.folder / "scripts")
        for name in ("pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, self.folder)
        for tool in ("cat", "cksum", "cp", "dirname", "mkdir", "sh"):
            (self.tools / tool).symlink_to(shutil.which(tool) or f"/bin/{tool}")

    def add_python(self, name: str = "python3.12") -> None:
        path = self.tools / name
        path.write_text(FAKE_PYTHON)
        path.chmod(0o755)

    def setup(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.folder / "scripts" / "setup", *arguments],
            env={"PATH": str(self.tools)} | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def calls(self) -> list[str]:
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def fails_with(result: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert all(part in line for part in parts), line


def test_no_python(checkout: Checkout) -> None:
    fails_with(checkout.setup(), "no Python 3.11 or newer", "PYTHON=")


def test_only_an_old_python(checkout: Checkout) -> None:
    checkout.add_python("python3")
    (checkout.folder / "old").touch()
    fails_with(checkout.setup(), "no Python 3.11 or newer")


def test_given_python_is_not_there_or_old(checkout: Checkout) -> None:
    fails_with(checkout.setup(PYTHON="python9"), "PYTHON=python9", "not to be found")
    checkout.add_python()
    (checkout.folder / "old").touch()
    fails_with(checkout.setup(PYTHON="python3.12"), "older than 3.11")


def test_no_venv_module(checkout: Checkout) -> None:
    checkout.add_python()
    (checkout.folder / "no-venv").touch()
    fails_with(checkout.setup(), "install python3.12-venv")


def test_second_time_does_nothing(checkout: Checkout) -> None:
    checkout.add_python()
    assert checkout.setup().returncode == 0
    first = checkout.calls()
    assert first == ["venv", "install --constraint constraints.txt --editable .[all]"]
    again = checkout.setup()
    assert (again.returncode, again.stdout, checkout.calls()) == (0, "", first)


def test_interrupted_install_is_resumed_in_the_same_venv(checkout: Checkout) -> None:
    checkout.add_python()
    (checkout.folder / "broken").touch()
    fails_with(checkout.setup(), "the install did not finish")
    (checkout.folder / "broken").unlink()
    assert checkout.setup().returncode == 0
    assert [call.split()[0] for call in checkout.calls()] == ["venv", "install", "install"]


def test_changed_requirements_are_installed(checkout: Checkout) -> None:
    checkout.add_python()
    checkout.setup()
    with (checkout.folder / "constraints.txt").open("a") as file:
        file.write("# another version\n")
    assert checkout.setup().returncode == 0
    assert [call.split()[0] for call in checkout.calls()] == ["venv", "install", "install"]


def test_what_tests_need_contains_what_running_needs(checkout: Checkout) -> None:
    checkout.add_python()
    checkout.setup("dev")
    checkout.setup()
    assert [call.split()[-1] for call in checkout.calls()] == ["venv", ".[all,dev]"]


def test_torch_once_taken_from_an_index_needs_no_naming_of_it_again(checkout: Checkout) -> None:
    index = "https://torch.example/cpu"
    checkout.add_python()
    checkout.setup(TORCH_INDEX_URL=index)
    first = checkout.calls()
    checkout.setup()
    checkout.setup(TORCH_INDEX_URL=index)
    assert checkout.calls() == first
    # Nor after an install of something else.
    checkout.setup("dev")
    checkout.setup("dev", TORCH_INDEX_URL=index)
    assert [call.split()[-1] for call in checkout.calls()[len(first) :]] == [".[all,dev]"]


def test_torch_from_another_index_replaces_the_one_that_is_there(checkout: Checkout) -> None:
    checkout.add_python()
    checkout.setup()
    checkout.setup(TORCH_INDEX_URL="https://torch.example/cpu")
    (torch,) = [call for call in checkout.calls() if call.endswith(" torch")]
    assert torch.startswith("install --force-reinstall --no-deps ")


def test_moved_checkout_gets_a_venv_that_knows_where_it_is(checkout: Checkout) -> None:
    checkout.add_python()
    checkout.setup()
    checkout.folder = checkout.folder.rename(checkout.folder.with_name("elsewhere"))
    assert checkout.setup().returncode == 0
    assert [call.split()[0] for call in checkout.calls()] == ["venv", "install"] * 2
    checkout.setup()
    assert len(checkout.calls()) == 4


def test_torch_alone_comes_from_its_own_index(checkout: Checkout) -> None:
    checkout.add_python()
    checkout.setup(TORCH_INDEX_URL="https://torch.example/cpu")
    torch, rest = checkout.calls()[1:]
    assert torch == (
        "install --no-deps --constraint constraints.txt --index-url https://torch.example/cpu torch"
    )
    assert "torch.example" not in rest
