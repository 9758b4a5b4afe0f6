# syntax=docker/dockerfile:1
# One image per kind of process: docker build --target capture|classify|classify-gpu|timeline|jobs|web .
# The base image is referenced by tag: pin it by digest in your own registry (docs/how-to/deployment.md).

FROM python:3.11-slim-bookworm AS base
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    HOME=/tmp \
    MPLCONFIGDIR=/tmp/matplotlib
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin fer \
    && install --directory --owner=fer --group=fer /var/lib/fer-stream /var/lib/fer-stream/files /var/lib/fer-stream/state
WORKDIR /var/lib/fer-stream
ENTRYPOINT ["fer-stream"]
CMD ["--help"]
EXPOSE 9464

# Libraries that opencv-python links against.
FROM base AS vision
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*

FROM python:3.11-slim-bookworm AS wheel
WORKDIR /src
COPY pyproject.toml README.md LICENSE THIRD_PARTY_NOTICES.md ./
COPY fer_stream fer_stream
COPY models models
COPY configs configs
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip wheel --no-deps --wheel-dir /wheels .

# The lock file of a role is its complete environment (scripts/role_locks.py); no dependency is resolved here.

FROM vision AS timeline
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,source=docker/requirements-timeline.txt,target=/tmp/requirements.txt \
    --mount=type=bind,from=wheel,source=/wheels,target=/tmp/wheels \
    python -m pip install --no-deps --only-binary :all: -r /tmp/requirements.txt /tmp/wheels/*.whl
USER 10001:10001

# YuNet weights, verified against the SHA-256 in the code. `--build-arg YUNET=` omits them; BlazeFace is used then.
FROM timeline AS weights
ARG YUNET=yunet-2023mar
ENV FER_STREAM_CACHE=/tmp/cache
RUN mkdir /tmp/cache && if [ -n "$YUNET" ]; then fer-stream models pull "$YUNET"; fi

FROM vision AS capture
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,source=docker/requirements-capture.txt,target=/tmp/requirements.txt \
    --mount=type=bind,from=wheel,source=/wheels,target=/tmp/wheels \
    python -m pip install --no-deps --only-binary :all: -r /tmp/requirements.txt /tmp/wheels/*.whl
COPY --from=weights /tmp/cache /opt/fer-stream/cache
ENV FER_STREAM_CACHE=/opt/fer-stream/cache
USER 10001:10001

FROM vision AS classify
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,source=docker/requirements-classify.txt,target=/tmp/requirements.txt \
    --mount=type=bind,from=wheel,source=/wheels,target=/tmp/wheels \
    python -m pip install --no-deps --only-binary :all: -r /tmp/requirements.txt /tmp/wheels/*.whl
USER 10001:10001

# CUDA is installed from NVIDIA's wheels; the host needs the driver and the container toolkit.
FROM vision AS classify-gpu
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,source=docker/requirements-classify-gpu.txt,target=/tmp/requirements.txt \
    --mount=type=bind,from=wheel,source=/wheels,target=/tmp/wheels \
    python -m pip install --no-deps --only-binary :all: -r /tmp/requirements.txt /tmp/wheels/*.whl
USER 10001:10001

FROM vision AS jobs
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,source=docker/requirements-jobs.txt,target=/tmp/requirements.txt \
    --mount=type=bind,from=wheel,source=/wheels,target=/tmp/wheels \
    python -m pip install --no-deps --only-binary :all: -r /tmp/requirements.txt /tmp/wheels/*.whl
COPY --from=weights /tmp/cache /opt/fer-stream/cache
ENV FER_STREAM_CACHE=/opt/fer-stream/cache
USER 10001:10001

FROM base AS web
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,source=docker/requirements-web.txt,target=/tmp/requirements.txt \
    --mount=type=bind,from=wheel,source=/wheels,target=/tmp/wheels \
    python -m pip install --no-deps --only-binary :all: -r /tmp/requirements.txt /tmp/wheels/*.whl
EXPOSE 8080
USER 10001:10001
