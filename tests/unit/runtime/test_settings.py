"""Settings: every fault at once, by environment name, exit code 2, and no value in the text."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field, SecretStr

from runtime.settings import EXIT_BAD_SETTINGS, Settings, WorkerSettings, load


class Example(Settings):
    some_limit_seconds: float = Field(1.0, gt=0)
    some_key: SecretStr | None = None
    must_be_given: int = Field()


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_fault_is_named_and_no_value_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOME_LIMIT_SECONDS", "-77")
    monkeypatch.setenv("LOG_LEVEL", "LOUD")
    with pytest.raises(SystemExit) as caught:
        load(Example)
    assert caught.value.code == EXIT_BAD_SETTINGS
    lines = capsys.readouterr().err.splitlines()
    assert {line.split(":")[0] for line in lines} == {
        "SOME_LIMIT_SECONDS",
        "LOG_LEVEL",
        "MUST_BE_GIVEN",
    }
    assert "-77" not in "".join(lines)


def test_faults_of_several_processes_are_told_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOG_LEVEL", "LOUD")
    monkeypatch.setenv("GRPC_PORT", "no")
    with pytest.raises(SystemExit):
        load(Settings, WorkerSettings, Example)
    names = [line.split(":")[0] for line in capsys.readouterr().err.splitlines()]
    assert sorted(names) == ["GRPC_PORT", "LOG_LEVEL", "MUST_BE_GIVEN"]


def test_a_dotenv_file_counts_and_the_environment_counts_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("GRPC_PORT=1111\nMETRICS_PORT=2222\nNOT_OURS=x\n")
    monkeypatch.setenv("GRPC_PORT", "3333")
    settings = load(WorkerSettings)
    assert (settings.grpc_port, settings.metrics_port) == (3333, 2222)


def test_an_empty_value_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRPC_PORT", "")
    assert load(WorkerSettings).grpc_port == 50051
