# tcpls in a container: the first stage compiles the congestion controllers, the second has no compiler.
#
#   docker build -t tcpls .
#   docker run --rm tcpls                                 # what this machine can do
#   docker run --rm tcpls python -m tcpls.server --help
#
# docs/kernel.md says which options of `docker run` (or podman) which kernel feature needs.

# APT_CONFIG and PIP_CONFIG_FILE may name configuration files of the package clients that are mounted for the build.

ARG BASE=debian:12-slim

FROM ${BASE} AS build
ARG APT_CONFIG
ARG PIP_CONFIG_FILE
ARG DEBIAN_FRONTEND=noninteractive
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates clang llvm libbpf-dev python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN python3 -m venv /opt/tcpls && /opt/tcpls/bin/pip install --no-cache-dir '.[cli]'
RUN /opt/tcpls/bin/python -m tcpls cc build -o /usr/share/tcpls/cc

FROM ${BASE}
ARG APT_CONFIG
ARG DEBIAN_FRONTEND=noninteractive
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates python3 python3-bpfcc \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --create-home --home-dir /var/lib/tcpls --shell /usr/sbin/nologin tcpls
COPY --from=build /opt/tcpls /opt/tcpls
COPY --from=build /usr/share/tcpls /usr/share/tcpls
ENV PATH=/opt/tcpls/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin PYTHONUNBUFFERED=1
WORKDIR /var/lib/tcpls
USER tcpls
EXPOSE 4433/tcp
CMD ["tcpls", "doctor"]
