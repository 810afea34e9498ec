# Builds a static binary and an image that holds nothing else.
#
#   docker build -t odx .
#   docker run --rm -p 3260:3260 -v odx-data:/data odx
#
# A new volume /data begins with conf/examples/container.yaml as its odx.yaml:
# two disks of 10 GiB. Put your own there, or mount one and name it with --config and -e ODX_CONFIG=.
# Mount its directory: a file that is mounted by itself cannot be replaced, so that `odx lun` and
# PUT /v1/config are refused. `docker kill --signal HUP` applies it to the running server.

FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.build=" -o /out/odx ./cmd/odx \
    && mkdir -p /out/data

FROM scratch
COPY --from=build /out/odx /odx
# 65532 is the conventional "nonroot" user of minimal images.
COPY --from=build --chown=65532:65532 /out/data /data
COPY --from=build --chown=65532:65532 /src/conf/examples/container.yaml /data/odx.yaml
USER 65532:65532
VOLUME /data
EXPOSE 3260
STOPSIGNAL SIGTERM
ENV ODX_CONFIG=/data/odx.yaml
# Healthy as long as LUNs are served: a full store is not mended by another container.
HEALTHCHECK --interval=30s --timeout=10s --start-period=2m CMD ["/odx", "status", "--ready"]
ENTRYPOINT ["/odx"]
CMD ["serve", "--config", "/data/odx.yaml"]
