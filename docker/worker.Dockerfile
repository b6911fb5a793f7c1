# The worker with libtorch, for CUDA or for the CPU only.
#
#   docker build -f docker/worker.Dockerfile -t mehl-soup-worker:0.1.0-cuda .
#   docker build -f docker/worker.Dockerfile -t mehl-soup-worker:0.1.0-cpu --build-arg LIBTORCH_VARIANT=cpu .

# Tags with a date or a version. Pass digests to pin them exactly.
ARG RUST_IMAGE=docker.io/library/rust:1.89.0-slim-bookworm
ARG DEBIAN_IMAGE=docker.io/library/debian:bookworm-20261005-slim

# libtorch is taken from PyTorch's wheel. `cuda` installs all dependencies of the wheel; `cpu` only the two packages that its libtorch_cpu.so needs
# to load (see scripts/setup.sh).
FROM ${DEBIAN_IMAGE} AS libtorch
ARG LIBTORCH_VARIANT=cuda
ARG TORCH=2.11.0
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/pip
# The libraries find each other by relative paths (torch/lib, nvidia/*/lib), so the layout is kept. triton and the Python files are not copied.
RUN case "$LIBTORCH_VARIANT" in \
        cuda) packages=("torch==$TORCH") ;; \
        cpu) packages=(--no-deps "torch==$TORCH" nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85) ;; \
        *) echo "LIBTORCH_VARIANT is '$LIBTORCH_VARIANT': expected cuda or cpu" >&2; exit 1 ;; \
    esac \
    && /opt/pip/bin/pip --disable-pip-version-check install --no-cache-dir --progress-bar off --target /opt/wheel "${packages[@]}" \
    && mkdir -p /opt/libtorch/torch \
    && cp -a /opt/wheel/torch/{include,share,version.py} /opt/libtorch/torch/ \
    && cp -a /opt/wheel/torch/lib /opt/libtorch/torch/lib \
    && rm -f /opt/libtorch/torch/lib/libtorch_python.so \
    && if [[ $LIBTORCH_VARIANT == cpu ]]; then rm -f /opt/libtorch/torch/lib/lib{torch_cuda,torch_cuda_linalg,c10_cuda,torch_nvshmem,caffe2_nvrtc}.so; fi \
    && cp -a /opt/wheel/nvidia /opt/libtorch/nvidia \
    && find /opt/libtorch/nvidia -type f -not -path '*/lib/*.so*' -delete \
    && rm -rf /opt/wheel

FROM ${RUST_IMAGE} AS chef
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
RUN cargo install cargo-chef --locked --version 0.1.72
WORKDIR /src

FROM chef AS plan
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

FROM chef AS build
COPY --from=libtorch /opt/libtorch /opt/libtorch
# The path is compiled into the program, which loads libtorch from there at run time.
ENV LIBTORCH=/opt/libtorch/torch
COPY --from=plan /src/recipe.json recipe.json
RUN cargo chef cook --release --locked --workspace --recipe-path recipe.json
COPY . .
RUN cargo build --release --locked --workspace && strip target/release/mehl-soup target/release/mehl-soup-worker
# A digits zoo with a sweep, for `helm test` and for the demo of docker/compose.yaml.
RUN target/release/mehl-soup-worker demo --out /opt/demo && rm -rf /opt/demo/run /opt/demo/base

FROM ${DEBIAN_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="mehl-soup worker" \
      org.opencontainers.image.description="Worker of mehl-soup, which learns the mixing coefficients of model soups" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libgcc-s1 libstdc++6 tini \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 mehl-soup \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin mehl-soup \
    && install -d -o 10001 -g 10001 /var/cache/mehl-soup
COPY --from=libtorch /opt/libtorch/torch/lib /opt/libtorch/torch/lib
COPY --from=libtorch /opt/libtorch/nvidia /opt/libtorch/nvidia
COPY --from=build /src/target/release/mehl-soup /src/target/release/mehl-soup-worker /usr/local/bin/
COPY --from=build /opt/demo /usr/share/mehl-soup/demo
COPY LICENSE-MIT LICENSE-APACHE /usr/share/doc/mehl-soup/
# No NVIDIA_VISIBLE_DEVICES: it would expose all GPUs. The device plugin or compose assigns them.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    MEHL_SOUP_CACHE_DIR=/var/cache/mehl-soup
USER 10001:10001
WORKDIR /
EXPOSE 9464
# The root file system can be read-only if /tmp and MEHL_SOUP_CACHE_DIR are writable.
ENTRYPOINT ["/usr/bin/tini", "--", "mehl-soup-worker"]
CMD ["serve"]
HEALTHCHECK --interval=20s --timeout=12s --start-period=120s --retries=6 CMD ["mehl-soup-worker", "healthcheck"]
