# One image per kind of process: docker build --target capture|classify|classify-gpu|timeline|jobs|web .
# The base image is referenced by tag: --build-arg PYTHON=REGISTRY/python@sha256:… uses your own (docs/how-to/deployment.md).
ARG PYTHON=python:3.11-slim-bookworm

# Packages and fer-stream are installed into /opt/fer-stream by separate instructions, so that a change of the code
# replaces one small layer. The lock file of a role is its complete environment (scripts/role_locks.py).
FROM ${PYTHON} AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
RUN python -m venv --without-pip /opt/fer-stream

FROM builder AS capture-packages
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,source=docker/requirements-capture.txt,target=/tmp/requirements.txt \
    python -m pip --python /opt/fer-stream install --no-deps --only-binary :all: --require-hashes -r /tmp/requirements.txt

FROM builder AS classify-packages
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,source=docker/requirements-classify.txt,target=/tmp/requirements.txt \
    python -m pip --python /opt/fer-stream install --no-deps --only-binary :all: --require-hashes -r /tmp/requirements.txt

# CUDA is installed from NVIDIA's wheels; the host needs the driver and the container toolkit.
FROM builder AS classify-gpu-packages
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,source=docker/requirements-classify-gpu.txt,target=/tmp/requirements.txt \
    python -m pip --python /opt/fer-stream install --no-deps --only-binary :all: --require-hashes -r /tmp/requirements.txt

FROM builder AS timeline-packages
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,source=docker/requirements-timeline.txt,target=/tmp/requirements.txt \
    python -m pip --python /opt/fer-stream install --no-deps --only-binary :all: --require-hashes -r /tmp/requirements.txt

FROM builder AS jobs-packages
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,source=docker/requirements-jobs.txt,target=/tmp/requirements.txt \
    python -m pip --python /opt/fer-stream install --no-deps --only-binary :all: --require-hashes -r /tmp/requirements.txt \
    && MPLCONFIGDIR=/opt/fer-stream/matplotlib /opt/fer-stream/bin/python -c "import matplotlib.font_manager"

FROM builder AS web-packages
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,source=docker/requirements-web.txt,target=/tmp/requirements.txt \
    python -m pip --python /opt/fer-stream install --no-deps --only-binary :all: --require-hashes -r /tmp/requirements.txt

# YuNet weights, verified against the SHA-256 in the code. `--build-arg YUNET=` omits them; BlazeFace is used then.
# FER_STREAM_MODELS_URL is the folder of a mirror. Only a change of the copied modules downloads them again.
FROM timeline-packages AS weights
ARG YUNET=yunet-2023mar
ARG FER_STREAM_MODELS_URL=
ENV FER_STREAM_CACHE=/opt/cache
WORKDIR /src
COPY fer_stream/__init__.py fer_stream/errors.py fer_stream/log.py fer_stream/model_files.py fer_stream/
RUN mkdir /opt/cache \
    && /opt/fer-stream/bin/python -c "import os; from fer_stream.model_files import pull; \
name = os.environ['YUNET']; name and pull(name, base_url=os.environ['FER_STREAM_MODELS_URL'] or None)"

FROM builder AS wheel
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,source=docker/requirements-build.txt,target=/tmp/requirements.txt \
    python -m pip install --no-deps --only-binary :all: --require-hashes -r /tmp/requirements.txt
WORKDIR /src
COPY pyproject.toml README.md LICENSE THIRD_PARTY_NOTICES.md ./
COPY models models
COPY configs configs
COPY fer_stream fer_stream
RUN python -m pip wheel --no-deps --no-index --no-build-isolation --wheel-dir /wheels .

FROM builder AS project
RUN --mount=type=bind,from=wheel,source=/wheels,target=/tmp/wheels \
    python -m pip --python /opt/fer-stream install --no-deps --no-index /tmp/wheels/*.whl

# Keras files are not part of the wheel.
FROM project AS project-gpu
COPY models/ /opt/fer-stream/lib/python3.11/site-packages/fer_stream/models/

# Without pip and apt: nothing is installed into a running container.
FROM ${PYTHON} AS runtime
ENV PATH=/opt/fer-stream/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    FER_STREAM_OFFLINE=1 \
    MPLCONFIGDIR=/tmp/matplotlib
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin fer \
    && install --directory --owner=fer --group=fer /var/lib/fer-stream /var/lib/fer-stream/files /var/lib/fer-stream/state \
    && rm -rf /usr/local/lib/python3.*/site-packages/* /usr/local/lib/python3.*/ensurepip /usr/local/bin/pip* \
    && dpkg --purge --force-depends --force-remove-protected --force-remove-essential apt \
    && rm -rf /var/lib/apt /var/cache/apt
COPY docker/healthcheck.py /opt/fer-stream/healthcheck.py
ARG VERSION=
ARG REVISION=
LABEL org.opencontainers.image.title="fer-stream" \
      org.opencontainers.image.source="https://github.com/fer-stream/fer-stream" \
      org.opencontainers.image.documentation="https://github.com/fer-stream/fer-stream/blob/main/docs/how-to/deployment.md" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
WORKDIR /var/lib/fer-stream
ENTRYPOINT ["fer-stream"]
CMD ["--help"]
EXPOSE 9464

# The last step of each image imports the code of its process.

FROM runtime AS capture
COPY --from=capture-packages /opt/fer-stream /opt/fer-stream
# Recordings need two fonts of Matplotlib, but not the package.
COPY --from=jobs-packages /opt/fer-stream/lib/python3.11/site-packages/matplotlib/mpl-data/fonts/ttf/DejaVuSans.ttf \
    /opt/fer-stream/lib/python3.11/site-packages/matplotlib/mpl-data/fonts/ttf/DejaVuSans-Bold.ttf \
    /usr/share/fonts/truetype/dejavu/
COPY --from=weights /opt/cache /opt/fer-stream/cache
ENV FER_STREAM_CACHE=/opt/fer-stream/cache
COPY --from=project /opt/fer-stream /opt/fer-stream
USER 10001:10001
RUN ["python", "-c", "from fer_stream.service.capture import capture; import fer_stream.capture.http_camera"]

FROM runtime AS classify
COPY --from=classify-packages /opt/fer-stream /opt/fer-stream
COPY --from=project /opt/fer-stream /opt/fer-stream
USER 10001:10001
RUN ["python", "-c", "from fer_stream.service.workers import classify"]

FROM runtime AS classify-gpu
COPY --from=classify-gpu-packages /opt/fer-stream /opt/fer-stream
COPY --from=project-gpu /opt/fer-stream /opt/fer-stream
USER 10001:10001
RUN ["python", "-c", "from fer_stream.service.workers import classify"]

FROM runtime AS timeline
COPY --from=timeline-packages /opt/fer-stream /opt/fer-stream
COPY --from=project /opt/fer-stream /opt/fer-stream
USER 10001:10001
RUN ["python", "-c", "from fer_stream.service.timeline import timeline"]

FROM runtime AS jobs
COPY --from=jobs-packages /opt/fer-stream /opt/fer-stream
COPY --from=weights /opt/cache /opt/fer-stream/cache
ENV FER_STREAM_CACHE=/opt/fer-stream/cache
COPY --from=project /opt/fer-stream /opt/fer-stream
# Matplotlib needs a writable folder for its list of fonts, which the build has prepared.
ENTRYPOINT ["sh", "-c", "cp -r /opt/fer-stream/matplotlib /tmp && exec fer-stream \"$@\"", "fer-stream"]
USER 10001:10001
RUN ["python", "-c", "from fer_stream.service.workers import jobs; import fer_stream.jobs.worker"]

FROM runtime AS web
COPY --from=web-packages /opt/fer-stream /opt/fer-stream
COPY --from=project /opt/fer-stream /opt/fer-stream
EXPOSE 8080
USER 10001:10001
RUN ["python", "-c", "from fer_stream.service.web import web"]
