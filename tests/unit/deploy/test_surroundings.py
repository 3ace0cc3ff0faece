"""Tests run apart from the developer's own settings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.deployables import ROOT
from support.surroundings import KNOWN, bare

from generator_worker.settings import GeneratorSettings


def test_every_test_runs_in_an_empty_folder_without_settings() -> None:
    assert not Path.cwd().is_relative_to(ROOT)
    assert not Path(".env").exists()
    assert {name.upper() for name in os.environ} & KNOWN == set()


def test_the_developers_settings_stay_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("LM_API_BASE=http://real.example/v1\n")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("lm_model", "openai/gpt-4o")
    monkeypatch.setenv("OPENAI_API_KEY", "real")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://real.example")
    with bare(tmp_path / "empty"):
        settings = GeneratorSettings()
        assert "OTEL_EXPORTER_OTLP_ENDPOINT" not in os.environ
    assert (settings.lm_model, settings.lm_api_base, settings.openai_api_key) == (None,) * 3
    outside = GeneratorSettings()
    assert (outside.lm_model, outside.lm_api_base) == ("openai/gpt-4o", "http://real.example/v1")
