# Weir alone: Kafka, the registry and ClickHouse are expected elsewhere.
FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends \
    clang libclang-dev cmake pkg-config libssl-dev libsasl2-dev libcurl4-openssl-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --locked -p weir && strip -o /weir target/debug/weir

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates libssl3 libsasl2-2 \
    && rm -rf /var/lib/apt/lists/* && useradd --system --create-home --home-dir /var/lib/weir weir
COPY --from=build /weir /usr/local/bin/weir
USER weir
WORKDIR /var/lib/weir
# The pipeline file is mounted at /etc/weir; its `state` belongs on a volume below /var/lib/weir.
VOLUME /var/lib/weir
STOPSIGNAL SIGTERM
ENTRYPOINT ["weir"]
CMD ["run", "/etc/weir/pipeline.toml"]
