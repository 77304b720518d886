#!/bin/sh
# Runs a command in an Alpine container that contains this checkout. Alpine's libc is musl. Workflows call this script
# and do not set a job's `container`, because actions do not run in Alpine containers on arm64.
set -e
tools='bash build-base cmake git linux-headers py3-pip samurai tar'
exec docker run --rm -v "$PWD:$PWD" -w "$PWD" node:22-alpine sh -c "
  apk add --no-cache $tools && git config --global --add safe.directory '*' && exec \"\$@\"" sh "$@"
