"""Workers while their model is opened: what ends them, and what they leave."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from support.encoder_workers import embedder, generator, reranker

import embedder_worker.worker
import generator_worker.worker
import reranker_worker.worker
from embedder_worker.settings import EmbedderSettings
from encoders.opening import exit_if_unusable
from generator_worker.settings import GeneratorSettings
from reranker_worker.settings import RerankerSettings


@pytest.mark.parametrize(
    ("serve", "settings", "setting"),
    [
        (embedder_worker.worker.serve, EmbedderSettings, "embedding_model"),
        (reranker_worker.worker.serve, RerankerSettings, "reranker_model"),
        (generator_worker.worker.serve, GeneratorSettings, "embedding_model"),
    ],
)
async def test_a_model_that_is_nowhere_is_one_line_and_exit_2(
    serve: Any, settings: Any, setting: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"grpc_host": "127.0.0.1", "grpc_port": 0, "metrics_port": 0, setting: "/no/such"}
    with pytest.raises(SystemExit) as caught:
        await serve(settings(_env_file=None, **given))
    assert caught.value.code == 2
    line = f"{setting.upper()}: there is no model folder '/no/such'\n"
    assert capsys.readouterr().err == line


async def test_a_reader_that_is_nowhere_is_named_by_its_setting(
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = {"grpc_host": "127.0.0.1", "grpc_port": 0, "metrics_port": 0}
    settings = GeneratorSettings(_env_file=None, reader_model="/no/such", **given)
    with pytest.raises(SystemExit) as caught:
        await generator_worker.worker.serve(settings)
    assert caught.value.code == 2
    assert capsys.readouterr().err == "READER_MODEL: there is no model folder '/no/such'\n"


def test_a_model_that_computes_no_numbers_is_one_line_and_exit_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught, exit_if_unusable("RERANKER_MODEL"):
        raise FloatingPointError("the model gave a score that is not finite")
    assert caught.value.code == 2
    line = "RERANKER_MODEL: the model gave a score that is not finite\n"
    assert capsys.readouterr().err == line


@pytest.mark.parametrize("worker", [embedder, reranker, generator])
async def test_stopped_while_it_exports_it_leaves_nothing(worker: Any, tmp_path: Path) -> None:
    async with worker(model_cache_dir=tmp_path), asyncio.timeout(60):
        while not list(tmp_path.glob(".making-*")):
            await asyncio.sleep(0.02)
    async with asyncio.timeout(60):
        while list(tmp_path.glob(".making-*")):
            await asyncio.sleep(0.02)
    assert list(tmp_path.glob("*/")) == []
