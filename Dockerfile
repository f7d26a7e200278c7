# Images for every node of a cluster (head, GPU and CPU workers) and for a single machine.
# Not executed by the authors; checked statically (tests/jobs/cluster/test_cluster_files.py).
#   docker build -t REGISTRY/wpcrack:0.1.0 .
#   install -d -m 777 demo   (docker would make it as root; the program runs as user 1000)
#   docker run --rm --shm-size=4g -v "$PWD/demo:/city/demo" REGISTRY/wpcrack:0.1.0 wpcrack demo
# To map only, on CPUs, without torch and CUDA (a quarter of the size):
#   docker build --target map -t REGISTRY/wpcrack-map:0.1.0 .
# GDAL, PROJ and GEOS come inside the wheels of rasterio, pyogrio and shapely; CUDA inside those of
# torch, so a GPU needs only the driver and the container toolkit of its machine.

ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS source
RUN python -m venv /opt/wpcrack
ENV PATH=/opt/wpcrack/bin:$PATH
WORKDIR /source
COPY pyproject.toml requirements-map.txt README.md LICENSE NOTICE ./
COPY wpcrack ./wpcrack
COPY geo ./geo
COPY jobs ./jobs
COPY configs ./configs

# Wheels only, so that no compiler is ever needed; our own package is the one exception.
FROM source AS build-map
RUN pip install --no-cache-dir --only-binary=:all: -r requirements-map.txt \
    && pip install --no-cache-dir --no-deps . \
    && python -c "import jobs.cli, ray, openvino, rasterio, pyogrio"

FROM source AS build
RUN pip install --no-cache-dir --only-binary=:all: \
        --no-binary=wpcrack . \
    && python -c "import jobs.cli, ray, torch, rasterio, pyogrio"

FROM python:${PYTHON}-slim-bookworm AS base
# wget: the health checks of KubeRay call it; libgomp1: OpenMP of scikit-image and OpenVINO;
# fonts-dejavu-core: names in Cyrillic or Greek on the pages as PDF
RUN apt-get update \
    && apt-get install --yes --no-install-recommends fonts-dejavu-core libgomp1 wget \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 1000 ray \
    && useradd --uid 1000 --gid 1000 --create-home ray \
    && install --directory --owner=ray --group=ray /city
ENV PATH=/opt/wpcrack/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    RAY_USAGE_STATS_ENABLED=0
USER 1000:1000
WORKDIR /city
CMD ["wpcrack", "--help"]

FROM base AS map
COPY --from=build-map /opt/wpcrack /opt/wpcrack

FROM base
COPY --from=build /opt/wpcrack /opt/wpcrack
