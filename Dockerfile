# Image for every node of a cluster (head, GPU and CPU workers) and for a single machine.
# Not executed by the authors; checked statically (tests/jobs/cluster/test_cluster_files.py).
#   docker build -t REGISTRY/wpcrack:0.1.0 .
#   docker run --rm --shm-size=4g -v "$PWD/demo:/city/demo" REGISTRY/wpcrack:0.1.0 wpcrack demo
# GDAL, PROJ and GEOS come inside the wheels of rasterio, pyogrio and shapely; CUDA inside those of
# torch, so a GPU needs only the driver and the container toolkit of its machine.

ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS build
RUN python -m venv /opt/wpcrack
ENV PATH=/opt/wpcrack/bin:$PATH
WORKDIR /source
# Wheels only, so that no compiler is ever needed; our own package is the one exception.
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY wpcrack ./wpcrack
COPY geo ./geo
COPY jobs ./jobs
COPY configs ./configs
RUN pip install --no-cache-dir --only-binary=:all: \
        --no-binary=wpcrack . \
    && python -c "import jobs.cli, ray, torch, rasterio, pyogrio"

FROM python:${PYTHON}-slim-bookworm
# wget: the health checks of KubeRay call it; libgomp1: OpenMP of scikit-image and OpenVINO
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 wget \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 1000 ray \
    && useradd --uid 1000 --gid 1000 --create-home ray \
    && install --directory --owner=ray --group=ray /city
COPY --from=build /opt/wpcrack /opt/wpcrack
ENV PATH=/opt/wpcrack/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    RAY_USAGE_STATS_ENABLED=0
USER 1000:1000
WORKDIR /city
CMD ["wpcrack", "--help"]
