#!/bin/sh
# Runs a command in Alpine, whose libc is musl, on this checkout. By hand, and not as a job's container: on arm64 no action runs in one.
set -e
tools='bash build-base cmake git linux-headers py3-pip samurai tar'
exec docker run --rm -v "$PWD:$PWD" -w "$PWD" node:22-alpine sh -c "
  apk add --no-cache $tools && git config --global --add safe.directory '*' && exec \"\$@\"" sh "$@"
