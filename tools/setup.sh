#!/usr/bin/env bash
# Finds what alloy is built on; installs what is missing (apt, dnf or brew), saying so; writes flags for make to $1.
set -eu
out=$1
pkgs="jansson libprotobuf-c libpng libjpeg libwebp libutf8proc libpcre2-8"
tests="cmocka"

missing() {
    command -v pkg-config >/dev/null 2>&1 || { echo pkg-config; return; }
    command -v "${CC:-cc}" >/dev/null 2>&1 || echo cc
    command -v protoc-c >/dev/null 2>&1 || command -v protoc-gen-c >/dev/null 2>&1 || echo protoc-c
    for p in $pkgs $tests; do pkg-config --exists "$p" || echo "$p"; done
}

install() {
    local sudo=""
    [ "$(id -u)" = 0 ] || sudo=sudo
    if command -v apt-get >/dev/null 2>&1; then
        set -- gcc make pkg-config libc6-dev libjansson-dev libprotobuf-c-dev protobuf-c-compiler protobuf-compiler libpng-dev libjpeg-dev \
            libwebp-dev libutf8proc-dev libpcre2-dev libcmocka-dev
        echo "setup: installing with apt-get: $*" >&2
        $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q "$@" >&2 ||
            { $sudo apt-get update -q >&2 && $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q "$@" >&2; }
    elif command -v dnf >/dev/null 2>&1; then
        set -- gcc make pkgconf-pkg-config jansson-devel protobuf-c-devel protobuf-c-compiler protobuf-compiler libpng-devel \
            libjpeg-turbo-devel libwebp-devel utf8proc-devel pcre2-devel libcmocka-devel
        echo "setup: installing with dnf: $*" >&2
        $sudo dnf install -y -q "$@" >&2
    elif command -v brew >/dev/null 2>&1; then
        set -- pkg-config jansson protobuf protobuf-c libpng jpeg-turbo webp utf8proc pcre2 cmocka
        echo "setup: installing with brew: $*" >&2
        brew install -q "$@" >&2
    else
        echo "setup: no apt-get, dnf or brew here; please install: $1" >&2
        exit 1
    fi
}

need=$(missing)
if [ -n "$need" ]; then
    echo "setup: missing:" $need >&2
    install "$(echo $need)"
    need=$(missing)
    [ -z "$need" ] || { echo "setup: still missing after installing:" $need >&2; exit 1; }
fi

protoc="protoc"
command -v protoc-c >/dev/null 2>&1 && protoc="protoc-c"
{
    echo "PKG_CFLAGS := $(pkg-config --cflags $pkgs)"
    echo "PKG_LIBS := $(pkg-config --libs $pkgs) -lm"
    echo "TEST_LIBS := $(pkg-config --libs $tests)"
    echo "PROTOC_C := $protoc"
} >"$out.tmp"
mv "$out.tmp" "$out"
