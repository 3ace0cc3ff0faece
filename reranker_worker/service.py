"""`rag.reranker.v1.RerankerService`: checks requests, and puts answers into messages."""

from __future__ import annotations

from typing import Any, Final

import grpc
from rag.reranker.v1 import reranker_pb2, reranker_pb2_grpc

from encoders.requests import require_fingerprint, require_text, require_texts, timings
from reranker_worker.model import Reranker
from runtime.errors import Reason, ServiceError

SERVICE_NAME: Final = reranker_pb2.DESCRIPTOR.services_by_name["RerankerService"].full_name
METHODS: Final = ("GetModel", "ScorePassages")

Context = grpc.aio.ServicerContext[Any, Any]


class RerankerService(reranker_pb2_grpc.RerankerServiceServicer):
    """The servicer; `reranker` is set once the model is ready, before any call is let in."""

    def __init__(self, max_text_bytes: int) -> None:
        self._max_text_bytes = max_text_bytes
        self.reranker: Reranker | None = None

    def add_to(self, server: grpc.aio.Server) -> None:
        """Registers the service."""
        reranker_pb2_grpc.add_RerankerServiceServicer_to_server(self, server)

    async def GetModel(
        self, request: reranker_pb2.GetModelRequest, context: Context
    ) -> reranker_pb2.GetModelResponse:
        """The identity of the loaded model."""
        reranker = self._ready()
        return reranker_pb2.GetModelResponse(
            name=reranker.identity.name,
            fingerprint=reranker.identity.fingerprint,
            engine=reranker.engine,
            max_tokens=reranker.identity.max_tokens,
        )

    async def ScorePassages(
        self, request: reranker_pb2.ScorePassagesRequest, context: Context
    ) -> reranker_pb2.ScorePassagesResponse:
        """One score per passage, in request order: all of them, or an error."""
        reranker = self._ready()
        require_fingerprint(request.expected_fingerprint, reranker.identity)
        require_text("query", request.query, self._max_text_bytes)
        require_texts("passages", request.passages, self._max_text_bytes)
        scored = await reranker.score(
            request.query,
            list(request.passages),
            truncate=request.truncate,
            remaining_s=context.time_remaining,
        )
        context.set_trailing_metadata(timings(scored.queue_s, scored.model_s))
        return reranker_pb2.ScorePassagesResponse(
            scores=scored.scores,
            truncated=scored.truncated,
            fingerprint=reranker.identity.fingerprint,
            tokens=scored.tokens,
        )

    def _ready(self) -> Reranker:
        if self.reranker is None:
            raise ServiceError(Reason.MODEL_LOADING, "The worker's model is not ready.", 1.0)
        return self.reranker
