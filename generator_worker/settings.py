"""What the generator worker reads from the environment."""

from __future__ import annotations

from typing import Final

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from encoders.settings import EmbeddingSettings

# The providers DSPy's own engine reaches; any other server is reached as "openai".
PROVIDERS: Final = frozenset(
    {
        "anthropic", "azure", "deepseek", "gemini", "groq", "hosted_vllm", "moonshot", "ollama",
        "ollama_chat", "openai", "openrouter", "xai",
    }
)  # fmt: skip

# As READER_MODEL: there is none.
NO_READER: Final = "none"


class GeneratorSettings(EmbeddingSettings):
    """What the generator worker reads beside `EmbeddingSettings`."""

    grpc_port: int = Field(50053, ge=0, le=65535, description="Port; 0 takes a free one.")
    lm_model: str | None = Field(
        None,
        description="Language model that writes the answers, as `provider/model`; a name without "
        "a known provider means `openai/...`. Not set: answers are sentences of the documents, and "
        "nothing is sent anywhere.",
    )
    lm_api_base: str | None = Field(
        None,
        pattern="^https?://",
        description="Address of an OpenAI-compatible server, such as http://localhost:11434/v1; "
        "not set: the provider's own.",
    )
    openai_api_key: SecretStr | None = Field(
        None,
        description="Key for OpenAI, or for the server at LM_API_BASE. By itself it has no effect.",
    )
    lm_temperature: float | None = Field(
        None,
        ge=0,
        le=2,
        description="Temperature when a request names none; not set: the model's own.",
    )
    lm_max_tokens: int = Field(
        1024,
        ge=1,
        le=131_072,
        description="Longest answer, in tokens, when a request names none. A model that reasons "
        "counts its reasoning too: give it more.",
    )
    lm_context_tokens: int = Field(
        8192,
        ge=1024,
        le=10_000_000,
        description="Tokens that the language model reads and writes together. Passages beyond "
        "it are cut.",
    )
    lm_first_token_timeout_seconds: float = Field(
        15.0,
        gt=0,
        le=3600,
        description="Silence of the language model before its first token, after which the "
        "sentences of the documents answer.",
    )
    lm_next_token_timeout_seconds: float = Field(
        10.0,
        gt=0,
        le=3600,
        description="Silence between two tokens after which the language model counts as stalled.",
    )
    lm_concurrency: int = Field(
        32, ge=1, le=10_000, description="Answers the language model writes at once."
    )
    lm_waiting: int = Field(
        64, ge=0, le=10_000, description="Questions that may wait for the language model."
    )
    answer_threshold: float = Field(
        0.55,
        ge=-1,
        le=1.2,
        description="Score that a sentence needs to answer: cosine, plus 0.2 times the share of "
        "the question's words, less 0.1 for a part of a sentence and 0.25 for a title; 0.55 is "
        "measured for all-MiniLM-L6-v2, see bench/answer_threshold.py.",
    )
    reader_model: str = Field(
        "production-rag/reader",
        min_length=1,
        description="Model that reads the first eight passages and marks the answer in them "
        "(`spans` of the sources): `production-rag/reader`, or an adapter's file; it runs as "
        "EMBEDDING_BACKEND and EMBEDDING_PRECISION say. `none`: sentences answer by similarity "
        "alone.",
    )
    reader_threshold: float = Field(
        0.35,
        ge=0,
        le=1,
        description="Probability that a sentence answers, which it needs to answer when there is "
        "a reader, whatever its form (ANSWER_THRESHOLD does not count then); measured for "
        "`production-rag/reader`, see bench/answer_evidence.py.",
    )
    answer_sentences: int = Field(
        4, ge=1, le=20, description="Most sentences of an answer made of the documents' own."
    )
    answer_sentences_read: int = Field(
        192,
        ge=8,
        le=4096,
        description="Most sentences of the passages that are compared with one question.",
    )
    answer_timeout_seconds: float = Field(
        60.0,
        gt=0,
        le=3600,
        description="Time for an answer when the caller sets no deadline.",
    )

    @field_validator("lm_model")
    @classmethod
    def _with_provider(cls, name: str | None) -> str | None:
        if name is None:
            return None
        provider, slash, model = name.partition("/")
        if slash and not (provider and model):
            raise ValueError("must be a model's name, or provider/model")
        return name if slash and provider in PROVIDERS else f"openai/{name}"

    # Field by field, and not over the whole, so that every fault is reported at once.

    @field_validator("lm_api_base")
    @classmethod
    def _reachable(cls, base: str | None, info: ValidationInfo) -> str | None:
        provider, _, model = (info.data.get("lm_model") or "").partition("/")
        if base is None and provider == "openai" and "/" in model:
            raise ValueError(
                f"is needed: LM_MODEL's {model.partition('/')[0]!r} is no provider known here, so "
                "name the OpenAI-compatible server that has the model"
            )
        return base

    @field_validator("openai_api_key")
    @classmethod
    def _has_key(cls, key: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        openai = (info.data.get("lm_model") or "").startswith("openai/")
        # A base that was refused is not in `data`; its own fault is enough.
        if key is None and openai and info.data.get("lm_api_base", "") is None:
            raise ValueError("is needed for LM_MODEL, unless LM_API_BASE is set")
        return key

    @field_validator("lm_context_tokens")
    @classmethod
    def _has_room_for_passages(cls, context_tokens: int, info: ValidationInfo) -> int:
        if context_tokens < 2 * info.data.get("lm_max_tokens", 0):
            raise ValueError("must be at least twice LM_MAX_TOKENS")
        return context_tokens
