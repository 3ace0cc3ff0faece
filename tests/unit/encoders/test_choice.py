"""What computes, and in which precision, by what the machine says of itself."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from support.models import MINILM

from encoders.embedding import load_embedding_model
from encoders.encoder import _choose_backend
from encoders.location import ModelUnusableError
from encoders.machine import has_nvidia_gpu, multiplies_bf16
from encoders.openvino_backend import _choose
from encoders.options import Runtime


class Core:
    """Of OpenVINO, what it says of the CPU."""

    def __init__(self, capabilities: list[str]) -> None:
        self._capabilities = capabilities

    def get_property(self, *_: Any) -> list[str]:
        return self._capabilities


@pytest.mark.parametrize(
    ("cpuinfo", "capabilities", "precision"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 amx_bf16 amx_int8", ["FP32", "BF16"], "bf16"),
        ("flags\t\t: fpu avx512f avx512_bf16", ["FP32", "BF16"], "bf16"),
        ("flags\t\t: fpu avx512f avx512_vnni", ["FP32", "BF16"], "fp32"),  # it would be emulated
        ("flags\t\t: fpu avx2", ["FP32"], "fp32"),
        ("Features\t: fp asimd bf16 i8mm", ["FP32", "FP16"], "fp32"),
    ],
)
def test_openvino_computes_in_what_the_cpu_multiplies(
    cpuinfo: str,
    capabilities: list[str],
    precision: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "cpuinfo").write_text(f"model name\t: a CPU\n{cpuinfo}\n")
    monkeypatch.setattr(
        "encoders.openvino_backend.multiplies_bf16", lambda: multiplies_bf16(tmp_path / "cpuinfo")
    )
    assert _choose(Core(capabilities), "auto")[0] == precision
    assert _choose(Core(capabilities), "fp32") == ("fp32", "as set")


@pytest.mark.parametrize(
    ("device", "found"),
    [("nvidia0", True), ("nvidia3", True), ("dxg", True), ("nvidiactl", False), ("null", False)],
)
def test_a_gpu_is_a_device_of_its_driver(device: str, found: bool, tmp_path: Path) -> None:
    (tmp_path / device).touch()
    assert has_nvidia_gpu(tmp_path) is found


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("encoders.encoder.has_nvidia_gpu", lambda: True)


@pytest.mark.usefixtures("gpu")
def test_a_gpu_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert _choose_backend("auto") == ("torch", "torch sees a GPU")
    assert _choose_backend("torch") == ("torch", "as set")
    assert _choose_backend("openvino") == ("openvino", "as set")


@pytest.mark.parametrize(
    ("cuda", "cause"),
    [(None, "is built without CUDA"), ("13.0", "the driver is older than CUDA 13.0")],
)
@pytest.mark.usefixtures("gpu")
def test_a_gpu_that_torch_cannot_use_is_warned_of(
    cuda: str | None,
    cause: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    assert _choose_backend("torch") == ("torch", "as set")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "there is a GPU that torch cannot use: computing on the CPU"
    assert cause in record.cause  # type: ignore[attr-defined]
    assert _choose_backend("auto") == ("openvino", "torch sees no GPU; fastest on CPUs")
    assert len(caplog.records) == 2


def test_a_gpu_without_room_for_the_model_is_said_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("encoders.torch_backend.TorchBackend", full)
    with pytest.raises(ModelUnusableError, match="does not fit into the GPU's memory"):
        load_embedding_model(MINILM, Runtime("torch"))


def test_without_a_gpu_it_is_openvino_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("encoders.encoder.has_nvidia_gpu", lambda: False)
    assert _choose_backend("auto") == ("openvino", "no GPU; fastest on CPUs")
    assert _choose_backend("torch") == ("torch", "as set")
    monkeypatch.setattr("encoders.encoder.importlib.util.find_spec", lambda _: None)
    assert _choose_backend("auto") == ("torch", "OpenVINO is not installed")
