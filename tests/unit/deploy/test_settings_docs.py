"""Settings, docs/configuration.md and .env.example say the same."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from types import ModuleType

import pytest
from support.deployables import ROOT, SETTINGS, environment_names

from deploy.local import LOOPBACK, LocalSettings
from runtime.settings import Settings

EXAMPLE = (ROOT / ".env.example").read_text()
GUIDE = (ROOT / "docs" / "configuration.md").read_text()


def test_both_are_current() -> None:
    check = subprocess.run(
        [sys.executable, ROOT / "scripts" / "settings_docs.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert check.returncode == 0, check.stdout + check.stderr


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = ROOT / "scripts" / "settings_docs.py"
    spec = importlib.util.spec_from_file_location("settings_docs", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_in_the_guide(name: str) -> None:
    documented = set(re.findall(r"^\| `([A-Z0-9_]+)` \|", GUIDE, re.MULTILINE))
    assert environment_names(name) <= documented


def test_nothing_is_set_in_the_example() -> None:
    set_lines = [line for line in EXAMPLE.splitlines() if line and not line.startswith("#")]
    assert set_lines == []


@pytest.mark.parametrize("name", SETTINGS)
def test_every_line_of_the_example_is_a_valid_setting(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uncommenting everything changes no default and is refused by nobody."""
    for key, value in re.findall(r"^#([A-Z0-9_]+)=(.+)$", EXAMPLE, re.MULTILINE):
        monkeypatch.setenv(key, value)
    settings = SETTINGS[name](_env_file=None)
    for field, info in type(settings).model_fields.items():
        if info.default not in (None, ""):
            assert getattr(settings, field) == info.default, field


def test_a_setting_without_a_description_is_refused(script: ModuleType) -> None:
    class Undescribed(Settings):
        number: int = 1

    with pytest.raises(ValueError, match="description"):
        "".join(script._table(Undescribed.model_fields))


def test_launcher_alone_defaults_to_loopback() -> None:
    assert LocalSettings.model_fields["server_host"].default == LOOPBACK
    assert SETTINGS["gateway"].model_fields["server_host"].default == "0.0.0.0"
