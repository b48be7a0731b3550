#!/usr/bin/env bash
# Makes sure that the build finds what it needs: Rust, a C++ compiler and libclang (RocksDB is compiled from source).
# Installs only what is missing, and only on Debian and Ubuntu; elsewhere it says what to install.
set -euo pipefail

# libclang itself; the C++ library beside it (libclang-cpp) is not what bindgen loads.
have_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return
    local dir
    for dir in /usr/lib/llvm-*/lib /usr/lib /usr/lib64 /usr/lib/*-linux-gnu /usr/local/lib; do
        if compgen -G "$dir/libclang.so*" >/dev/null || compgen -G "$dir/libclang-[0-9]*.so*" >/dev/null; then
            return
        fi
    done
    return 1
}

if ! command -v cargo >/dev/null; then
    echo "cargo was not found: install Rust from https://rustup.rs, then run make again" >&2
    exit 1
fi

missing=()
command -v c++ >/dev/null || missing+=(g++)
have_libclang || missing+=(libclang-dev)

if [ ${#missing[@]} -gt 0 ]; then
    if ! command -v apt-get >/dev/null; then
        echo "the build needs a C++ compiler and libclang; install what is missing here: ${missing[*]} (Debian's names)" >&2
        exit 1
    fi
    echo "Installing what the build needs: ${missing[*]}"
    as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    "${as_root[@]}" apt-get update -qq
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

target=${CARGO_TARGET_DIR:-target}
if ! compgen -G "$target/release/build/librocksdb-sys-*/out/librocksdb.a" >/dev/null; then
    echo "The first build compiles RocksDB: about 20 minutes on 2 cores, less on more. Later builds reuse $target."
fi
