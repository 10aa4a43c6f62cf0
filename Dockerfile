# syntax=docker/dockerfile:1
# The program in a small image: `docker build --tag limber .`. Needs BuildKit, which Docker has by default.
#
# The release's workflow puts the programs of its archives in the place of the first stage.

FROM rust:1-bookworm AS build
ARG TARGETARCH
WORKDIR /limber
COPY . .
# What `limber --version` says; `.git` is not copied.
ARG LIMBER_COMMIT=unknown
# As in a release: built, packed, tried on the demo's image. The glibc is that of the second stage.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/limber/target,id=limber-target-$TARGETARCH \
    target=$(rustc --print host-tuple) && \
    LIMBER_GLIBC=2.36 .ci/release archive "$target" && \
    .ci/release image "target/archives/$(.ci/release name "$target")" "/out/$TARGETARCH"

# glibc and libgcc, no shell; a user without rights, whose number is 65532.
FROM gcr.io/distroless/cc-debian12:nonroot
ARG TARGETARCH
LABEL org.opencontainers.image.title="limber" \
      org.opencontainers.image.description="Stitches any frozen image encoder to any frozen text language model through one small trained layer" \
      org.opencontainers.image.licenses="Apache-2.0 OR MIT"
COPY --from=build /out/${TARGETARCH} /
# Weights are downloaded to /models, kept in a volume; relative paths begin in /data.
ENV HF_HOME=/models
VOLUME /models
WORKDIR /data
ENTRYPOINT ["limber"]
