# The sidecar's image: one static binary, CA certificates, and nothing that could run a command.
#
#   docker build -t content-factory-sidecar .
#
# glibc is linked in (2.34 and later resolve names without files of their own), so the last stage needs no system.

FROM rust:1.95-bookworm AS build
WORKDIR /source
COPY . .
# --target, although it is the host: else the flags would reach build scripts and macros, which cannot be static;
# relocations as a bitmap are half a MiB less to read, and so to keep in memory, at the start; RUSTFLAGS hides those
# of .cargo/config.toml, so they stand here too
RUN target="$(rustc --version --verbose | sed -n 's/^host: //p')" \
 && RUSTFLAGS="-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs -C symbol-mangling-version=v0" cargo build --locked --profile dist --bin content-factory-sidecar --target "$target" \
 && install -D --mode=0755 "target/$target/dist/content-factory-sidecar" /image/content-factory-sidecar \
 && install -D --mode=0644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt \
 && install -D --mode=0644 LICENSE /image/licenses/content-factory-sidecar \
 && echo 'nonroot:x:65532:65532:nonroot:/:/nonexistent' > /image/etc/passwd \
 && mkdir -p /image/var/lib /data

FROM scratch
COPY --from=build /image/ /
# the owner is said here, because builders differ in whether a copy keeps it
COPY --from=build --chown=65532:65532 /data/ /var/lib/content-factory-sidecar/
ENV SIDECAR_DATA_DIR=/var/lib/content-factory-sidecar \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
# a number, because Kubernetes cannot tell from a name that it is not root
USER 65532:65532
EXPOSE 18000 18090
ENTRYPOINT ["/content-factory-sidecar"]
CMD ["run"]
