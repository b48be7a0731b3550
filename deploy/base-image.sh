#!/usr/bin/env bash
# Makes the image that deploy/Dockerfile starts from, out of Debian packages: for machines that reach a Debian mirror but no
# image registry. Needs root and a Docker engine; installs nothing. The files are kept in a cache, so only the first time
# takes its minute or two.
set -euo pipefail

image=debian:bookworm-slim
suite=bookworm
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/flotilla
archive=$cache/$suite-$(uname -m).tar

if docker image inspect "$image" >/dev/null 2>&1; then
    echo "The image $image is there already."
    exit
fi

# debootstrap is a shell script: where it is not installed, it can be unpacked and run from there.
debootstrap=(debootstrap)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
get_debootstrap() {
    command -v debootstrap >/dev/null && return
    if ! command -v apt-get >/dev/null; then
        echo "debootstrap was not found: install it, or get the image $image from a registry" >&2
        exit 1
    fi
    (cd "$work" && apt-get download -qq -o APT::Sandbox::User=root debootstrap && dpkg --extract debootstrap_*.deb unpacked)
    debootstrap=(env "DEBOOTSTRAP_DIR=$work/unpacked/usr/share/debootstrap" "$work/unpacked/usr/sbin/debootstrap")
}

if [ ! -s "$archive" ]; then
    if [ "$(id -u)" -ne 0 ]; then
        echo "debootstrap needs root: run deploy/base-image.sh as root once, or get the image $image from a registry" >&2
        exit 1
    fi
    get_debootstrap
    # A mirror that does not answer must not hold anybody up for ever.
    timeout 900 "${debootstrap[@]}" --variant=minbase "$suite" "$work/root" "$mirror" >"$work/log" 2>&1 || {
        echo "debootstrap failed:" >&2
        tail -n 20 "$work/log" >&2
        exit 1
    }
    mkdir -p "$cache"
    # What only a running system needs: package lists, packages, manuals, translations. Renamed when it is whole.
    tar --directory "$work/root" --create --file "$archive.$$" \
        --exclude='./var/cache/apt/*' --exclude='./var/lib/apt/lists/*' --exclude='./var/log/*' \
        --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*' .
    mv "$archive.$$" "$archive"
fi
docker import "$archive" "$image"
