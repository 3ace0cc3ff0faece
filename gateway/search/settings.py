"""What the store reads from the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal, cast, get_args

from pydantic import Field, SecretStr, field_validator

from gateway.search.tuning import Quantization, Tuning
from gateway.search.wire import IndexKind
from runtime.settings import Settings

COLLECTION_PATTERN: Final = r"^[a-z0-9][a-z0-9_-]{0,62}$"
_FIELD: Final = r"[\w-]+(\.[\w-]+)*"


class StoreSettings(Settings):
    """Settings of the vector store. A field's environment name is its own in capitals."""

    qdrant_url: str | None = Field(
        None,
        pattern=r"^https?://[^\s/]+",
        description="Qdrant server, such as http://localhost:6333. Unset: the embedded engine "
        "in DATA_DIR.",
    )
    qdrant_api_key: SecretStr | None = Field(
        None, description="API key of the Qdrant server. Unset: none is sent."
    )
    qdrant_grpc_port: int = Field(
        6334,
        ge=0,
        le=65535,
        description="gRPC port of the Qdrant server; 0 speaks REST to QDRANT_URL instead.",
    )
    qdrant_collection: str = Field(
        "documents",
        pattern=COLLECTION_PATTERN,
        description="Collection of requests that name none; it exists from the start.",
    )
    vector_dim: int = Field(
        384,
        ge=1,
        le=65_536,
        description="Length of a vector; must be what the embedding model gives.",
    )
    data_dir: Path = Field(
        Path("data"),
        description="Folder of the embedded engine and of the jobs; one gateway at a time may "
        "use it.",
    )
    search_concurrency: int = Field(
        10, ge=1, le=1000, description="Searches in the store at once; more wait their turn."
    )
    search_prefetch: int = Field(
        100,
        ge=1,
        le=1000,
        description="Passages each of the two stages (dense, BM25) hands to the fusion, when a "
        "request asks for fewer.",
    )
    hybrid_fusion_k: int = Field(
        20,
        ge=1,
        le=1000,
        description="Constant of the reciprocal rank fusion of dense and BM25; smaller trusts "
        "the top more.",
    )
    vector_quantization: Quantization = Field(
        "int8",
        description="Small copies of the vectors that searches look at first: int8 (a quarter of "
        "the size, in memory) or none. The embedded store makes them when it optimises; a Qdrant "
        "server for new collections.",
    )
    hnsw_m: int = Field(
        0,
        ge=0,
        le=128,
        description="Edges of a chunk in the graph over the vectors (HNSW), such as 16. 0: the "
        "embedded store builds none, which is fast enough up to some 500,000 chunks; a Qdrant "
        "server takes its own default.",
    )
    hnsw_ef_construct: int = Field(
        100,
        ge=4,
        le=2000,
        description="Candidates for a chunk's edges while a graph is built; used with HNSW_M.",
    )
    hnsw_ef: int = Field(
        128,
        ge=1,
        le=10_000,
        description="Candidates that a search in a graph keeps; more find more, in more time.",
    )
    optimize_from_vectors: int = Field(
        20_000,
        ge=0,
        description="Chunks from which on a part of the embedded store is optimised (at a start "
        "and at the end of a rebuild), where fewer are searched as they are; 0: never.",
    )
    optimize_timeout_seconds: float = Field(
        600.0,
        ge=0,
        description="How long a start may wait for a collection of the embedded store to be "
        "optimised; 0 does not optimise at the start.",
    )
    filter_fields: str = Field(
        "",
        pattern=rf"^\s*({_FIELD}(:(keyword|integer|float|bool|datetime))?\s*(,\s*|$))*$",
        description="Metadata fields that filters name often, comma separated; each gets an "
        "index. A field's values are strings unless a type follows it: "
        "team,year:integer,price:float,draft:bool,published:datetime. Other fields work too, "
        "only slower. All gateways of a Qdrant server should name the same.",
    )
    bm25_language: str = Field(
        "english",
        pattern=r"^[a-z]+$",
        description="Language whose stop words and word stems BM25 uses in new collections.",
    )

    max_collections: int = Field(
        32,
        ge=1,
        le=1000,
        description="Most collections there may be; each takes a process of its own in the "
        "embedded store.",
    )
    reindex_keep_seconds: float = Field(
        300.0,
        ge=10,
        le=86_400,
        description="How long a collection's old generation is kept after a rebuild, for the "
        "searches that go on in it.",
    )

    @field_validator("bm25_language")
    @classmethod
    def _known_language(cls, value: str) -> str:
        if value not in get_args(Language):
            raise ValueError(f"must be one of {', '.join(get_args(Language))}")
        return value

    def tuning(self) -> Tuning:
        """How the store finds its way among many vectors."""
        return Tuning(
            self.optimize_from_vectors,
            self.vector_quantization,
            self.hnsw_m,
            self.hnsw_ef_construct,
            self.hnsw_ef,
        )

    @field_validator("filter_fields")
    @classmethod
    def _each_field_once(cls, value: str) -> str:
        names = [part.partition(":")[0].strip() for part in value.split(",") if part.strip()]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"names {', '.join(twice)} twice")
        if reserved := sorted({"not", "or"} & set(names)):
            raise ValueError(f"names {', '.join(reserved)}, which filters reserve")
        return value

    def indexed_fields(self) -> dict[str, IndexKind]:
        """FILTER_FIELDS as field → type of its index."""
        fields: dict[str, IndexKind] = {}
        for part in self.filter_fields.split(","):
            name, _, kind = part.strip().partition(":")
            if name:
                fields[name] = cast(IndexKind, kind or "keyword")
        return fields


# The languages qdrant_edge.Bm25 knows.
Language = Literal[
    "arabic", "azerbaijani", "basque", "bengali", "catalan", "chinese", "danish", "dutch",
    "english", "finnish", "french", "german", "greek", "hebrew", "hinglish", "hungarian",
    "indonesian", "italian", "japanese", "kazakh", "nepali", "norwegian", "portuguese",
    "romanian", "russian", "slovene", "spanish", "swedish", "tajik", "turkish",
]  # fmt: skip
