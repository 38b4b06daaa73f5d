# CPU image with the command d3fast: docker build -t d3fast . && docker run --rm d3fast --help
# docs/gate.md shows a check with read-only mounts and without a network.

FROM python:3.11-slim AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/d3fast
ENV PATH=/opt/d3fast/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY constraints.txt /src/constraints.txt
# The CPU build of torch: the usual one brings gigabytes of CUDA libraries. What it requires comes
# with d3fast below, since its index lacks some of the pinned versions.
RUN pip install --no-deps --constraint /src/constraints.txt --index-url https://download.pytorch.org/whl/cpu torch
COPY pyproject.toml setup.py CMakeLists.txt MANIFEST.in README.md LICENSE /src/
COPY csrc /src/csrc
COPY d3fast /src/d3fast
RUN D3FAST_CUDA=off pip install --constraint /src/constraints.txt "/src[cli,transformers]"

FROM python:3.11-slim
RUN useradd --create-home --uid 10001 d3fast
COPY --from=build /opt/d3fast /opt/d3fast
ENV PATH=/opt/d3fast/bin:$PATH PYTHONUNBUFFERED=1
USER d3fast
WORKDIR /home/d3fast
ENTRYPOINT ["d3fast"]
CMD ["--help"]
