# The scheduler and the client commands: only the program `mehl-soup`, without libtorch.
#
#   docker build -f docker/scheduler.Dockerfile -t mehl-soup-scheduler:0.1.0 .

# Tags with a date or a version. Pass digests to pin them exactly.
ARG RUST_IMAGE=docker.io/library/rust:1.89.0-slim-bookworm
ARG DEBIAN_IMAGE=docker.io/library/debian:bookworm-20261005-slim

FROM ${RUST_IMAGE} AS chef
RUN cargo install cargo-chef --locked --version 0.1.72
WORKDIR /src

FROM chef AS plan
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

# Dependencies are a separate layer, which is rebuilt only when they change.
FROM chef AS build
COPY --from=plan /src/recipe.json recipe.json
RUN cargo chef cook --release --locked --package mehl-soup --recipe-path recipe.json
COPY . .
RUN cargo build --release --locked --package mehl-soup && strip target/release/mehl-soup

FROM ${DEBIAN_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="mehl-soup scheduler" \
      org.opencontainers.image.description="Scheduler and client of mehl-soup, which learns the mixing coefficients of model soups" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates tini \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 mehl-soup \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin mehl-soup
COPY --from=build /src/target/release/mehl-soup /usr/local/bin/mehl-soup
COPY LICENSE-MIT LICENSE-APACHE /usr/share/doc/mehl-soup/
USER 10001:10001
WORKDIR /
EXPOSE 7070
# The program writes no files, so the root file system can be read-only. tini is process 1: it forwards SIGTERM and reaps children.
ENTRYPOINT ["/usr/bin/tini", "--", "mehl-soup"]
CMD ["serve"]
HEALTHCHECK --interval=10s --timeout=12s --start-period=30s --retries=3 CMD ["mehl-soup", "healthcheck"]
