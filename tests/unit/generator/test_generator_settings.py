"""What the generator worker accepts from the environment."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from generator_worker.settings import PROVIDERS, GeneratorSettings
from generator_worker.worker import _api_key

BASE = {"lm_api_base": "http://localhost:1/v1"}


def read(**values: Any) -> GeneratorSettings:
    return GeneratorSettings(_env_file=None, **values)


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LM_MODEL", "LM_API_BASE", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("given", "model"),
    [
        ("gpt-3.5-turbo", "openai/gpt-3.5-turbo"),
        ("openai/gpt-4o", "openai/gpt-4o"),
        ("ollama_chat/llama3", "ollama_chat/llama3"),
        ("meta-llama/Llama-3.1-8B", "openai/meta-llama/Llama-3.1-8B"),
    ],
)
def test_a_model_without_a_known_provider_is_behind_an_openai_api(given: str, model: str) -> None:
    assert read(lm_model=given, **BASE).lm_model == model


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"lm_model": "gpt-4o"}, "openai_api_key"),
        ({"lm_model": "meta-llama/Llama", "openai_api_key": "k"}, "lm_api_base"),
        ({"lm_model": "openai/", **BASE}, "provider/model"),
        ({"lm_api_base": "localhost:8000"}, "lm_api_base"),
        ({"lm_max_tokens": 5000, "lm_context_tokens": 8192}, "lm_context_tokens"),
        ({"lm_model": "openai/"}, "lm_model"),
    ],
)
def test_what_cannot_work_is_refused_at_start(values: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        read(**values)


def test_all_faults_are_reported_at_once() -> None:
    with pytest.raises(ValidationError) as caught:
        read(lm_model="gpt-4o", lm_temperature=9, lm_max_tokens=5000, answer_threshold=7)
    named = {fault["loc"][0] for fault in caught.value.errors()}
    assert named == {"openai_api_key", "lm_temperature", "lm_context_tokens", "answer_threshold"}


def test_a_key_alone_sends_nothing_anywhere() -> None:
    assert read(openai_api_key="sk-1").lm_model is None


def test_the_key_is_shown_to_its_own_servers_only() -> None:
    key = {"openai_api_key": "sk-1"}
    assert _api_key(read(**key), "openai/gpt-4o") == "sk-1"
    assert _api_key(read(**key, **BASE), "hosted_vllm/x") == "sk-1"
    assert _api_key(read(**key), "anthropic/claude") is None
    assert _api_key(read(**BASE), "openai/x") == "none"
    assert "sk-1" not in repr(read(**key))


def test_every_provider_named_is_one_that_dspy_reaches() -> None:
    from dspy._vendor.lm15.router import LITELLM_PROVIDER_PREFIXES

    assert set(LITELLM_PROVIDER_PREFIXES) == PROVIDERS
