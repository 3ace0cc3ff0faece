"""The servers that ours is measured beside, at the versions that were tried."""

from __future__ import annotations

from typing import Final

from bench.foreign import Recipe

_TORCH: Final = "torch==2.13.0"
_INFINITY: Final = ("infinity-emb[optimum,server,torch]==0.0.78", _TORCH)
_FRAMEWORKS: Final = (
    "litserve==0.2.19",
    "mosec==0.9.8",
    "sentence-transformers==6.2.0",
    "transformers==5.23.0",
    _TORCH,
)
_EXPORT: Final = (
    "{bin}/optimum-cli", "export", "onnx", "--model", "{model}", "--library", "transformers",
    "--task", "feature-extraction", "onnx",
)  # fmt: skip


def _infinity(name: str, *options: str, model: str = "{model}", run_in: str = ".") -> Recipe:
    command = (
        "{bin}/infinity_emb", "v2", "--model-id", model, "--served-model-name", "model",
        "--device", "cpu", "--host", "127.0.0.1", "--port", "{port}", *options,
    )  # fmt: skip
    return Recipe(
        f"infinity-emb 0.0.78, {name}",
        "infinity",
        _INFINITY,
        command,
        prepare=_EXPORT,
        folder=run_in,
    )


RECIPES: Final = (
    _infinity("torch fp32, its default", "--engine", "torch"),
    _infinity("torch bf16", "--engine", "torch", "--dtype", "bfloat16"),
    # It finds the ONNX file of a local model only in the folder in which it runs, and takes the
    # first token's state for the vector if it is not told how this model pools.
    _infinity(
        "onnxruntime fp32",
        *("--engine", "optimum", "--pooling-method", "mean"),
        model=".",
        run_in="onnx",
    ),
    Recipe(
        "LitServe 0.2.19, sentence-transformers bf16",
        "frameworks",
        _FRAMEWORKS,
        ("{bin}/python", "{apps}/litserve_app.py", "{model}", "{port}"),
    ),
    Recipe(
        "mosec 0.9.8, sentence-transformers bf16",
        "frameworks",
        _FRAMEWORKS,
        # Its own 3 s for a call are too short for a machine that is busy.
        (
            "{bin}/python",
            "{apps}/mosec_app.py",
            "--address",
            "127.0.0.1",
            "--port",
            "{port}",
            "--timeout",
            "120000",
        ),
        path="/inference",
    ),
)
