# The sidecar on a distroless Python: no shell, no compiler, no package manager in the image that runs.
# Both stages are Debian 13, so that the extensions are built for the very Python that loads them.
#   docker build -t sidecar .

FROM debian:13-slim AS build
SHELL ["/bin/bash", "-eo", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1

# Dependencies first: this layer changes only with the lock files. Every archive is checked against its hash.
COPY requirements.lock requirements-build.lock ./
RUN python3 -m venv /opt/build \
    && /opt/build/bin/python -m pip install --require-hashes --requirement requirements-build.lock \
    && python3 -m venv --without-pip /opt/sidecar \
    && /opt/build/bin/python -m pip --python /opt/sidecar/bin/python install --only-binary :all: \
        --require-hashes --requirement requirements.lock

# An extension that does not build is an error here, and the result is asked whether it is compiled.
COPY . .
RUN SIDECAR_REQUIRE_EXTENSIONS=1 /opt/build/bin/python -m pip wheel \
        --no-deps --no-build-isolation --wheel-dir /opt/wheel . \
    && /opt/build/bin/python -m pip --python /opt/sidecar/bin/python install --no-deps --no-index /opt/wheel/*.whl \
    && /opt/sidecar/bin/sidecar version --json | tee /dev/stderr | grep '"compiled": true' > /dev/null

FROM gcr.io/distroless/python3-debian13:nonroot
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="sidecar" \
      org.opencontainers.image.description="A gRPC sidecar proxy: one process beside each service instance." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.base.name="gcr.io/distroless/python3-debian13:nonroot"
COPY --from=build /opt/sidecar /opt/sidecar
ENV PATH=/opt/sidecar/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    SIDECAR_CONFIG=/etc/sidecar/sidecar.yaml
USER 65532:65532
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["sidecar", "healthcheck", "--live"]
ENTRYPOINT ["sidecar"]
CMD ["run"]
