"""`rag.embedder.v1.EmbedderService`: checks requests, and puts answers into messages."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import grpc
from rag.embedder.v1 import embedder_pb2, embedder_pb2_grpc

from embedder_worker.model import Embedder
from encoders.blueprint import InputType
from encoders.lanes import Lane
from encoders.requests import invalid, require_fingerprint, require_texts, timings
from runtime.errors import Reason, ServiceError

SERVICE_NAME: Final = embedder_pb2.DESCRIPTOR.services_by_name["EmbedderService"].full_name
METHODS: Final = ("GetModel", "EmbedTexts")

_INPUT_TYPES: Final[Mapping[int, InputType]] = MappingProxyType(
    {embedder_pb2.INPUT_TYPE_QUERY: "query", embedder_pb2.INPUT_TYPE_PASSAGE: "passage"}
)
_LANES: Final[Mapping[int, Lane]] = MappingProxyType(
    {
        embedder_pb2.LANE_UNSPECIFIED: "interactive",
        embedder_pb2.LANE_INTERACTIVE: "interactive",
        embedder_pb2.LANE_BULK: "bulk",
    }
)

Context = grpc.aio.ServicerContext[Any, Any]


class EmbedderService(embedder_pb2_grpc.EmbedderServiceServicer):
    """The servicer; `embedder` is set once the model is ready, before any call is let in."""

    def __init__(self, max_text_bytes: int) -> None:
        self._max_text_bytes = max_text_bytes
        self.embedder: Embedder | None = None

    def add_to(self, server: grpc.aio.Server) -> None:
        """Registers the service."""
        embedder_pb2_grpc.add_EmbedderServiceServicer_to_server(self, server)

    async def GetModel(
        self, request: embedder_pb2.GetModelRequest, context: Context
    ) -> embedder_pb2.GetModelResponse:
        """The identity of the loaded model."""
        identity = self._ready().identity
        return embedder_pb2.GetModelResponse(
            name=identity.name,
            fingerprint=identity.fingerprint,
            dimension=identity.dimension,
            max_tokens=identity.max_tokens,
        )

    async def EmbedTexts(
        self, request: embedder_pb2.EmbedTextsRequest, context: Context
    ) -> embedder_pb2.EmbedTextsResponse:
        """One vector per text, in request order: all of them, or an error."""
        embedder = self._ready()
        require_fingerprint(request.expected_fingerprint, embedder.identity)
        input_type = _INPUT_TYPES.get(request.input_type)
        if input_type is None:
            raise invalid("input_type", "must be INPUT_TYPE_QUERY or INPUT_TYPE_PASSAGE")
        lane = _LANES.get(request.lane)
        if lane is None:
            raise invalid("lane", "must be LANE_INTERACTIVE or LANE_BULK")
        require_texts("texts", request.texts, self._max_text_bytes)
        embedded = await embedder.embed(
            list(request.texts),
            input_type=input_type,
            lane=lane,
            truncate=request.truncate,
            remaining_s=context.time_remaining,
        )
        context.set_trailing_metadata(timings(embedded.queue_s, embedded.model_s))
        return embedder_pb2.EmbedTextsResponse(
            vectors=embedded.vectors.astype("<f4", copy=False).tobytes(),
            dimension=embedder.identity.dimension,
            truncated=embedded.truncated,
            fingerprint=embedder.identity.fingerprint,
            tokens=embedded.tokens,
        )

    def _ready(self) -> Embedder:
        if self.embedder is None:
            raise ServiceError(Reason.MODEL_LOADING, "The worker's model is not ready.", 1.0)
        return self.embedder
