# tabane in a container; `make image` builds it. Its configuration is a folder, mounted at /etc/tabane with a
# tabane.yaml in it; conf/deploy has two compose files that show how.
#
# Both stages stand on the same Debian: what the binary was linked against is what it runs with.

ARG RUST=1.95

FROM docker.io/library/rust:${RUST}-bookworm AS build
# Pingora's compression library is built with cmake.
RUN apt-get update && \
    apt-get install -y --no-install-recommends cmake && \
    rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY plugins plugins
# Cargo reads the manifests of the whole workspace, whatever it builds of it.
COPY benches benches
COPY tests/sim tests/sim
COPY tests/custom tests/custom
# Dependencies and what was compiled of them outlive a change in the sources, in caches that are not in the image.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --profile dist --package tabane --bin tabane && \
    install -D target/dist/tabane /out/tabane && \
    install -d /out/data

# No shell and no package manager; the certificates of the usual authorities are there, for nodes with TLS.
FROM gcr.io/distroless/cc-debian12:nonroot
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="tabane" \
      org.opencontainers.image.description="A programmable load balancer that makes many GPU servers look like one" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /out/tabane /usr/local/bin/tabane
# For `data_dir: /var/lib/tabane`: a named volume takes over the owner. Without data_dir nothing is written
# anywhere, and the root file system may be read-only either way.
COPY --from=build --chown=65532:65532 /out/data /var/lib/tabane
ENV TABANE_CONFIG=/etc/tabane/tabane.yaml
# By number: an orchestrator that wants to know that it is not root cannot look up names.
USER 65532:65532
# Clients. The operator's 9900 is on the container's loopback unless the file says otherwise.
EXPOSE 8080
# By address: without it the command reads the file, and a bad edit, which the gateway itself does not mind,
# would make it look unhealthy. A file with another admin address needs another health check.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["/usr/local/bin/tabane", "healthcheck", "--admin", "127.0.0.1:9900"]
ENTRYPOINT ["/usr/local/bin/tabane"]
CMD ["run"]
