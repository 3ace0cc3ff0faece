# syntax=docker/dockerfile:1
#
# One target per deployable, and a last one, the default, that runs all of them:
#
#   docker build -t production-rag . && docker run -p 8080:8080 -v rag-data:/data production-rag
#   docker build -t production-rag-gateway --target gateway .      (embedder, reranker, generator)
#   docker build -t production-rag-embedder-cuda --target embedder-cuda .            (reranker-cuda)
#
# TORCH_INDEX_URL        package index to take torch from: one with builds for CPU alone saves
#                        gigabytes. Default: where pip takes all else from.
# TORCH_CUDA_INDEX_URL   the same for the -cuda targets. Default: as above, and PyPI's torch for
#                        Linux is the CUDA build.
# Only the images that compute with a model hold torch; the gateway's does not.

ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim AS base
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONPATH=/app:/app/protos \
    PYTHONUNBUFFERED=1
WORKDIR /app


# --- what each deployable needs from outside --------------------------------
# The project is installed here without its packages: they are copied in last,
# so that a changed line of code costs no download.

FROM base AS dependencies
RUN python -m venv /opt/venv
WORKDIR /build
COPY pyproject.toml constraints.txt LICENSE NOTICE ./
RUN touch README.md && mkdir protos

FROM dependencies AS gateway-dependencies
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --constraint constraints.txt ".[gateway]"

# Torch by itself first: its index serves nothing else, and its layer is shared.
FROM dependencies AS torch
ARG TORCH_INDEX_URL=""
RUN --mount=type=cache,target=/root/.cache/pip \
    set -e; if [ -n "$TORCH_INDEX_URL" ]; then \
        pip install --no-deps --constraint constraints.txt --index-url "$TORCH_INDEX_URL" torch; \
    fi; \
    pip install --constraint constraints.txt ".[encoders]"

# CUDA's libraries come with torch as packages; of the host it needs the driver alone.
FROM dependencies AS torch-cuda
ARG TORCH_CUDA_INDEX_URL=""
RUN --mount=type=cache,target=/root/.cache/pip \
    set -e; if [ -n "$TORCH_CUDA_INDEX_URL" ]; then \
        pip install --no-deps --constraint constraints.txt --index-url "$TORCH_CUDA_INDEX_URL" torch; \
    fi; \
    pip install --constraint constraints.txt ".[encoders]" \
    && python -c "import sys, torch; sys.exit(torch.version.cuda is None)"

# What OpenVINO reads of the default models: the embedder's, and the adapters in encoders/trained,
# each merged into its base. Without it each new container makes its own at the start: 8 s, and the
# 400 MB of memory that torch takes meanwhile.
FROM torch AS exports
WORKDIR /app
COPY runtime runtime
COPY encoders encoders
RUN python -m encoders.export --kind embedding --cache-dir /exports/embedding \
        --model sentence-transformers/all-MiniLM-L6-v2 \
    && python -m encoders.export --trained --cache-dir /exports

FROM torch AS embedder-dependencies
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --constraint constraints.txt ".[embedder]"

FROM torch-cuda AS embedder-cuda-dependencies
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --constraint constraints.txt ".[embedder]"

FROM torch AS reranker-dependencies
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --constraint constraints.txt ".[reranker]"

FROM torch-cuda AS reranker-cuda-dependencies
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --constraint constraints.txt ".[reranker]"

FROM torch AS generator-dependencies
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --constraint constraints.txt ".[generator]"

FROM torch AS all-dependencies
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --constraint constraints.txt ".[all]"


# --- what each image holds --------------------------------------------------

FROM base AS process
ENV HOME=/home/rag
RUN groupadd --gid 10001 rag \
    && useradd --uid 10001 --gid rag --home-dir /home/rag --create-home --shell /usr/sbin/nologin rag \
    && install -d -o rag -g rag /data /home/rag/.cache
COPY runtime runtime
COPY protos protos
COPY deploy/*.py deploy/
# By number: Kubernetes cannot prove that a name is not root.
USER 10001:10001

FROM process AS gateway
COPY --from=gateway-dependencies /opt/venv /opt/venv
COPY gateway gateway
ENV DATA_DIR=/data SERVER_HOST=0.0.0.0 SERVER_PORT=8080
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-m", "deploy.healthcheck", "http"]
ENTRYPOINT ["python", "-m", "gateway"]

# A worker with a -cuda target beside it is all but its packages first. They come last, by
# themselves (--link), so that a changed line of code still pushes none of them again.
FROM process AS embedder-process
COPY --from=exports /exports/embedding /opt/exports
COPY encoders encoders
COPY embedder_worker embedder_worker
ENV GRPC_PORT=50051 METRICS_PORT=9090 MODEL_EXPORTS_DIR=/opt/exports
EXPOSE 50051 9090
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-m", "deploy.healthcheck", "rag.embedder.v1.EmbedderService"]
ENTRYPOINT ["python", "-m", "embedder_worker"]

FROM embedder-process AS embedder
COPY --link --from=embedder-dependencies /opt/venv /opt/venv

FROM embedder-process AS embedder-cuda
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --link --from=embedder-cuda-dependencies /opt/venv /opt/venv

FROM process AS reranker-process
COPY --from=exports /exports/late_interaction /opt/exports
COPY encoders encoders
COPY reranker_worker reranker_worker
ENV GRPC_PORT=50052 METRICS_PORT=9090 MODEL_EXPORTS_DIR=/opt/exports
EXPOSE 50052 9090
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-m", "deploy.healthcheck", "rag.reranker.v1.RerankerService"]
ENTRYPOINT ["python", "-m", "reranker_worker"]

FROM reranker-process AS reranker
COPY --link --from=reranker-dependencies /opt/venv /opt/venv

FROM reranker-process AS reranker-cuda
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --link --from=reranker-cuda-dependencies /opt/venv /opt/venv

FROM process AS generator
COPY --from=generator-dependencies /opt/venv /opt/venv
COPY --from=exports /exports/embedding /opt/exports
COPY --from=exports /exports/reader /opt/exports
COPY encoders encoders
COPY generator_worker generator_worker
ENV GRPC_PORT=50053 METRICS_PORT=9090 MODEL_EXPORTS_DIR=/opt/exports
EXPOSE 50053 9090
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-m", "deploy.healthcheck", "rag.generator.v1.GeneratorService"]
ENTRYPOINT ["python", "-m", "generator_worker"]

# Everything in one container, by the launcher that `make run` uses. The last
# stage is what `docker build .` makes.
FROM process AS all
COPY --from=all-dependencies /opt/venv /opt/venv
COPY --from=exports /exports/embedding /opt/exports
COPY --from=exports /exports/late_interaction /opt/exports
COPY --from=exports /exports/reader /opt/exports
COPY encoders encoders
COPY embedder_worker embedder_worker
COPY reranker_worker reranker_worker
COPY generator_worker generator_worker
COPY gateway gateway
ENV DATA_DIR=/data SERVER_HOST=0.0.0.0 SERVER_PORT=8080 MODEL_EXPORTS_DIR=/opt/exports
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=180s --retries=3 \
    CMD ["python", "-m", "deploy.healthcheck", "http"]
ENTRYPOINT ["python", "-m", "deploy.local"]
