# One image for API, workers and migration. `EXTRAS=gpu,export` brings faiss with CUDA.
# PyTorch's CPU build is smaller by gigabytes: give pip an index that has it by `--build-arg PIP_EXTRA_INDEX_URL=...`.
FROM python:3.11-slim-bookworm AS build
ARG EXTRAS=cpu,export
ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/reid
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY reid_core reid_core
COPY service service
COPY worker worker
RUN /opt/reid/bin/pip install -c constraints.txt ".[${EXTRAS}]"

FROM python:3.11-slim-bookworm
ARG EXTRAS=cpu,export
# Triton compiles the launcher of its kernels when they first run.
# No versions: Debian replaces them with every point release.
# hadolint ignore=DL3008
RUN case ",$EXTRAS," in *,gpu,*) \
      apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/* ;; \
    esac
RUN useradd --create-home --uid 1000 reid && install -d -o reid -g reid /var/lib/reid
COPY --from=build /opt/reid /opt/reid
ENV PATH=/opt/reid/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    OMP_WAIT_POLICY=PASSIVE \
    REID_HOME=/var/lib/reid \
    REID_HOST=0.0.0.0 \
    REID_PORT=8000
USER 1000
WORKDIR /var/lib/reid
EXPOSE 8000
CMD ["reid", "api"]
