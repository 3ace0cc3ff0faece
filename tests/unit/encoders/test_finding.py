"""Finding a model, telling models apart, and knowing the machine."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import filter_repo_objects
from support.models import MINILM

from encoders.blueprint import Blueprint, Prompt
from encoders.export import cache_key, read_blueprint, write_blueprint
from encoders.identity import fingerprint
from encoders.location import ModelFiles, ModelUnusableError, locate
from encoders.machine import available_cpus, multiplies_bf16
from encoders.scoring import engine_of


@pytest.mark.parametrize("name", [MINILM, "all-MiniLM-L6-v2"])
def test_the_packaged_model_is_found_without_a_hub(name: str) -> None:
    files = locate(name)
    assert files.name == MINILM
    assert (files.folder / "model.safetensors").is_file()


def test_of_a_local_folder_only_the_last_part_shows(model: Path) -> None:
    files = locate(str(model))
    assert (files.name, files.folder) == ("model", model)


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/model", "a/b/c"])
def test_a_folder_that_is_not_there_is_said(name: str) -> None:
    with pytest.raises(ModelUnusableError, match="there is no model folder"):
        locate(name)


def test_a_model_of_no_hub_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelUnusableError, match="'nobody/nothing' is in no package"):
        locate("nobody/nothing")


RESPONSE = httpx.Response(401, request=httpx.Request("GET", "https://hub"))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (GatedRepoError("no", response=RESPONSE), "accepted on the hub, and HF_TOKEN to be set"),
        (RepositoryNotFoundError("no", response=RESPONSE), "no such name; for a private one set"),
        (HFValidationError("no"), "names are `owner/model`"),
        (LocalEntryNotFoundError("no"), "the hub was not reached"),
    ],
)
def test_why_a_hub_gave_nothing_is_said(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(ModelUnusableError, match=said):
        locate("nobody/nothing")


def test_a_repository_without_a_model_is_not_called_unreached(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def download(*_: object, local_files_only: bool, **__: object) -> str:
        if local_files_only:
            raise LocalEntryNotFoundError("no")
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(ModelUnusableError, match="its repository lacks config.json or weights"):
        locate("somebody/nothing")


def test_layers_in_the_older_format_come_with_weights_in_the_newer(
    monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    """As fnmatch of the hub's client has it."""
    wanted: list[str] = []

    def download(*_: object, allow_patterns: list[str], **__: object) -> str:
        wanted.extend(allow_patterns)
        return str(model)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert locate("somebody/something").folder == model
    files = ["2_Dense/pytorch_model.bin", "pytorch_model.bin", "model.safetensors"]
    assert list(filter_repo_objects(files, allow_patterns=wanted)) == [files[0], files[2]]


def test_what_a_killed_download_left_in_the_cache_is_fetched_whole(
    monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    shards = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    write(model / "model.safetensors.index.json", {"weight_map": shards})
    (model / "model-1.safetensors").write_bytes(b"first")
    asked: list[bool] = []

    def download(*_: object, local_files_only: bool, **__: object) -> str:
        asked.append(local_files_only)
        if not local_files_only:
            (model / "model-2.safetensors").write_bytes(b"second")
        return str(model)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert locate("somebody/large").folder == model
    assert False in asked
    asked.clear()
    assert locate("somebody/large").folder == model
    assert asked == [True]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "tokenizer.json").write_text('{"vocab": {"a": 0}}')
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    write(folder / "config.json", {"hidden_size": 8, "architectures": ["BertModel"]})
    (folder / "heads" / "dense" / "inner").mkdir(parents=True)
    (folder / "heads" / "dense" / "model.safetensors").write_bytes(b"head")
    (folder / "heads" / "dense" / "inner" / "model.safetensors").write_bytes(b"inner")
    write(folder / "modules.json", modules("sentence_transformers.models"))
    write(folder / "config_sentence_transformers.json", {"prompts": {"query": "q: "}})
    return folder


def modules(package: str) -> list[dict[str, str]]:
    names = {"": "Transformer", "1_Pooling": "Pooling", "heads/dense": "Dense", "9_None": "None"}
    return [{"path": path, "type": f"{package}.{name}"} for path, name in names.items()]


def write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))


def of(folder: Path, kind: str = "embedding") -> str:
    return fingerprint(ModelFiles("m", folder), kind=kind)


CHANGES: list[Callable[[Path], object]] = [
    lambda model: (model / "model.safetensors").write_bytes(b"other weights"),
    lambda model: (model / "tokenizer.json").write_text('{"vocab": {"a": 1}}'),
    lambda model: (model / "1_Pooling" / "config.json").write_text('{"pooling_mode": "cls"}'),
    lambda model: (model / "heads" / "dense" / "model.safetensors").write_bytes(b"other"),
    lambda model: (model / "heads" / "dense" / "inner" / "model.safetensors").write_bytes(b"o"),
    lambda model: write(model / "config.json", {"hidden_size": 9}),
    lambda model: write(model / "sentence_bert_config.json", {"max_seq_length": 12}),
    lambda model: write(
        model / "config_sentence_transformers.json", {"prompts": {"query": "other: "}}
    ),
]


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_the_vectors_changes_the_fingerprint(
    model: Path, change: Callable[[Path], object]
) -> None:
    before = of(model)
    change(model)
    assert of(model) != before


def test_what_changes_no_vector_leaves_the_fingerprint(model: Path, tmp_path: Path) -> None:
    before = of(model)
    (model / "README.md").write_text("a card")
    (model / "pytorch_model.bin").write_bytes(b"the same weights in an older format")
    (model / "onnx").mkdir()
    (model / "onnx" / "config.json").write_text("{}")
    config = {"architectures": ["BertModel"], "dtype": "float16", "transformers_version": "9"}
    write(model / "config.json", {**config, "hidden_size": 8})
    (model / "2_old").mkdir()
    (model / "2_old" / "model.safetensors").write_bytes(b"of no module")
    write(model / "modules.json", modules("sentence_transformers.base.modules"))
    assert of(model) == before
    moved = shutil.copytree(model, tmp_path / "elsewhere")
    assert of(moved) == before


def test_another_use_of_the_same_weights_is_another_model(model: Path) -> None:
    assert of(model, "embedding") != of(model, "late_interaction")
    assert cache_key(of(model)) != cache_key(of(model, "late_interaction"))


def test_a_folder_without_weights_is_no_model(model: Path) -> None:
    for weights in model.rglob("*.safetensors"):
        weights.unlink()
    with pytest.raises(ModelUnusableError, match="model holds no weights"):
        of(model)


@pytest.mark.parametrize(
    ("architecture", "saved_as", "has_modules", "engine"),
    [
        ("BertModel", None, True, "late_interaction"),
        ("BertModel", None, False, "late_interaction"),
        ("BertForSequenceClassification", None, False, "cross_encoder"),
        ("Qwen3ForCausalLM", "CrossEncoder", True, "cross_encoder"),
        ("Qwen3ForCausalLM", "SentenceTransformer", True, "late_interaction"),
        # Saved before models said what they are: only bi-encoders listed their modules then.
        ("Qwen3ForCausalLM", None, True, "late_interaction"),
        ("Qwen3ForCausalLM", None, False, "cross_encoder"),
    ],
)
def test_the_engine_is_the_models(
    model: Path, architecture: str, saved_as: str | None, has_modules: bool, engine: str
) -> None:
    write(model / "config.json", {"architectures": [architecture]})
    write(model / "config_sentence_transformers.json", {"model_type": saved_as})
    if not has_modules:
        (model / "modules.json").unlink()
    assert engine_of(ModelFiles("m", model)) == engine


def test_a_blueprint_survives_the_disk(tmp_path: Path) -> None:
    blueprint = Blueprint(
        kind="embedding",
        inputs=("input_ids", "attention_mask"),
        dimension=384,
        normalised=True,
        max_tokens=256,
        pad_id=0,
        prompts={"query": Prompt("q: ", 2), "passage": Prompt()},
        tokenizer="{}",
    )
    write_blueprint(blueprint, tmp_path / "b.json")
    assert read_blueprint(tmp_path / "b.json") == blueprint


@pytest.mark.parametrize(
    ("file", "content", "cpus"),
    [
        ("cpu.max", "100000 100000\n", 1),
        ("cpu.max", "50000 100000\n", 1),
        ("cpu.max", "max 100000\n", None),
        ("cpu.max", "150000 100000\n", 2),
        ("cpu/cpu.cfs_quota_us", "-1\n", None),
        ("cpu/cpu.cfs_quota_us", "100000\n", 1),
    ],
)
def test_threads_come_from_the_quota(
    tmp_path: Path, file: str, content: str, cpus: int | None
) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / file).write_text(content)
    allowed = len(os.sched_getaffinity(0))
    assert available_cpus(tmp_path) == (allowed if cpus is None else min(cpus, allowed))


@pytest.mark.parametrize(
    ("flags", "found"),
    [("fpu avx512f amx_bf16 avx512_bf16", "amx_bf16"), ("fpu avx512_bf16", "avx512_bf16"),
     ("fpu avx2", None)],
)  # fmt: skip
def test_bf16_is_what_the_cpu_says(tmp_path: Path, flags: str, found: str | None) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags\t\t: {flags}\n")
    assert multiplies_bf16(tmp_path / "cpuinfo") == found
