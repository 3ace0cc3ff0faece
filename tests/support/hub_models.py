"""Small models in the formats in which a hub has them, their weights random.

Each function writes one into a folder that is not there yet, as the family's own repositories
look: which files, which tokenizer, which fields of `config.json`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from support.models import MINILM, TEXTS
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer, UnigramTrainer
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from encoders.location import locate

MAX_TOKENS = 64
# Weights far larger than usual, so that what random ones compute differs visibly.
_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "initializer_range": 0.3,
}
_BERT: dict[str, Any] = _SIZES | {"vocab_size": 30522, "max_position_embeddings": MAX_TOKENS}
_SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
_NAMED = {f"{token[1:-1].lower()}_token": token for token in _SPECIAL}


def ms_marco(folder: Path) -> Path:
    """cross-encoder/ms-marco-MiniLM-L6-v2: BERT, and the activation in `config.json`."""
    model = BertForSequenceClassification(_config(BertConfig, _BERT, num_labels=1))
    model.save_pretrained(folder)
    _word_pieces(folder)
    identity = {"activation_fn": "torch.nn.modules.linear.Identity", "version": "4.0.1"}
    change_json(folder / "config.json", {"sentence_transformers": identity})
    return folder


def old_bert(folder: Path) -> Path:
    """As transformers 4 saved: `pytorch_model.bin`, `vocab.txt` and no `tokenizer.json`."""
    model = BertForSequenceClassification(_config(BertConfig, _BERT, num_labels=1))
    _pickle(model, folder)
    labels = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    change_json(folder / "config.json", labels | {"transformers_version": "4.6.1"})
    _word_pieces(folder)
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.get)) + "\n")
    return folder


def bge_reranker(folder: Path, *, limit: int = MAX_TOKENS) -> Path:
    """BAAI/bge-reranker-v2-m3: XLM-RoBERTa, whose positions begin at 2, with a `tokenizer.json`
    made from sentencepiece's, and pairs without token types.

    limit: the tokenizer's own; some say 1e30, which is none.
    """
    tokenizer = _unigram("<s> $A </s>", "<s> $A </s> </s> $B </s>", ["<s>", "<pad>", "</s>"])
    config = _config(
        XLMRobertaConfig, _SIZES, vocab_size=tokenizer.get_vocab_size(), num_labels=1,
        max_position_embeddings=MAX_TOKENS + 2, type_vocab_size=1,
        bos_token_id=0, pad_token_id=1, eos_token_id=2,
    )  # fmt: skip
    _pickle(XLMRobertaForSequenceClassification(config), folder)
    named = {"bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>", "pad": "<pad>"}
    tokens = {f"{name}_token": token for name, token in named.items()} | {"unk_token": "[UNK]"}
    _save_tokenizer(tokenizer, folder, "XLMRobertaTokenizer", tokens, limit)
    return folder


def gte_reranker(folder: Path) -> Path:
    """Alibaba-NLP/gte-reranker-modernbert-base: ModernBERT, sliding windows, half precision."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    _train(tokenizer, BpeTrainer(special_tokens=_SPECIAL, initial_alphabet=alphabet))
    _frame(tokenizer, "[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]", ["[CLS]", "[SEP]"])
    config = _config(
        ModernBertConfig, _SIZES, vocab_size=tokenizer.get_vocab_size(), num_labels=1,
        max_position_embeddings=MAX_TOKENS, classifier_pooling="mean",
        local_attention=8, global_attn_every_n_layers=2,
        pad_token_id=0, bos_token_id=1, cls_token_id=1, eos_token_id=2, sep_token_id=2,
    )  # fmt: skip
    model: Any = ModernBertForSequenceClassification(config)
    model.half().save_pretrained(folder)
    inputs = {"model_input_names": ["input_ids", "attention_mask"]}
    _save_tokenizer(tokenizer, folder, "PreTrainedTokenizerFast", _NAMED | inputs)
    return folder


def mxbai_reranker(folder: Path) -> Path:
    """mixedbread-ai/mxbai-rerank-base-v1: DeBERTa-v2, relative positions, no token types though
    its tokenizer gives them."""
    ends = ["[CLS]", "[SEP]"]
    pair = "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1"
    tokenizer = _unigram("[CLS] $A [SEP]", pair, ends)
    config = _config(
        DebertaV2Config, _SIZES, vocab_size=tokenizer.get_vocab_size(), num_labels=1,
        max_position_embeddings=MAX_TOKENS, type_vocab_size=0, relative_attention=True,
        position_buckets=16, norm_rel_ebd="layer_norm", share_att_key=True,
        pos_att_type=["p2c", "c2p"], position_biased_input=False, pooler_hidden_size=32,
    )  # fmt: skip
    DebertaV2ForSequenceClassification(config).save_pretrained(folder)
    _save_tokenizer(tokenizer, folder, "DebertaV2Tokenizer", _NAMED)
    return folder


def language_model(folder: Path) -> Path:
    """A language model as such, which some rerankers are made from."""
    tokenizer = _unigram("$A", "$A $B", [])
    size = tokenizer.get_vocab_size()
    config = _config(Qwen2Config, _SIZES, vocab_size=size, num_key_value_heads=2)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    _save_tokenizer(tokenizer, folder, "PreTrainedTokenizerFast", _NAMED)
    return folder


def bge(folder: Path, *, pooling: str = "cls", prompts: dict[str, str] | None = None) -> Path:
    """BAAI/bge-small-en-v1.5 and intfloat/e5-small-v2: the files of sentence-transformers 2.

    pooling: "cls" as bge has it, "mean_tokens" as e5.
    """
    BertModel(_config(BertConfig, _BERT)).save_pretrained(folder)
    _word_pieces(folder)
    types = "sentence_transformers.models."
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    listed = [
        {"idx": index, "name": str(index), "path": path, "type": types + kind}
        for index, (path, kind) in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    length = {"max_seq_length": MAX_TOKENS, "do_lower_case": True}
    (folder / "sentence_bert_config.json").write_text(json.dumps(length))
    (folder / "1_Pooling").mkdir()
    modes = {f"pooling_mode_{mode}": False for mode in ("cls_token", "mean_tokens", "max_tokens")}
    chosen = "pooling_mode_cls_token" if pooling == "cls" else f"pooling_mode_{pooling}"
    settings = {"word_embedding_dimension": 32} | modes | {chosen: True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    if prompts:
        (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    return folder


def change_json(path: Path, changes: dict[str, Any]) -> None:
    """Sets fields of a JSON object in a file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _config(kind: Any, sizes: dict[str, Any], **others: Any) -> Any:
    torch.manual_seed(1)
    return kind(**(sizes | others))


def _pickle(model: PreTrainedModel, folder: Path) -> None:
    model.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")


def _word_pieces(folder: Path) -> None:
    packaged = locate(MINILM).folder
    AutoTokenizer.from_pretrained(packaged, model_max_length=MAX_TOKENS).save_pretrained(folder)


def _unigram(single: str, pair: str, ends: list[str]) -> Tokenizer:
    """As transformers turns sentencepiece's models into a `tokenizer.json`."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "[UNK]"] if "<s>" in ends else _SPECIAL
    _train(tokenizer, UnigramTrainer(vocab_size=300, special_tokens=special, unk_token="[UNK]"))
    _frame(tokenizer, single, pair, ends)
    return tokenizer


def _train(tokenizer: Tokenizer, trainer: Any) -> None:
    trainer.show_progress = False
    trainer.vocab_size = 400
    tokenizer.train_from_iterator(TEXTS, trainer)


def _frame(tokenizer: Tokenizer, single: str, pair: str, ends: list[str]) -> None:
    ids = [(token, tokenizer.token_to_id(token)) for token in ends]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=ids
    )


def _save_tokenizer(
    tokenizer: Tokenizer, folder: Path, kind: str, others: dict[str, Any], limit: int = MAX_TOKENS
) -> None:
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": kind, "model_max_length": limit} | others
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
