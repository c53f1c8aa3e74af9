#!/usr/bin/env bash
# The tour of the README for real: build, deploy, bench, one request, stop.
#   demo.sh TOOLKIT DEPLOYMENT.yaml
set -euo pipefail

toolkit="$1"
file="$2"
# A name of its own: a server of the same file that the user runs is neither met nor stopped.
name="$(sed -n 's/^name: *\([^ #]*\).*/\1/p' "$file")-demo"
export TOOLKIT__NAME="$name"

# Whatever else runs on this machine keeps its ports.
export TOOLKIT__SERVING__PORTS__HTTP=0 TOOLKIT__SERVING__PORTS__GRPC=0 TOOLKIT__SERVING__PORTS__METRICS=0
export TOOLKIT__GATEWAY__PORT=0
export TOOLKIT_WORKSPACE="${TOOLKIT_WORKSPACE:-$(dirname "$file")/.toolkit}"

say() { printf '\n== %s\n' "$*"; }

say "toolkit build $file"
"$toolkit" build "$file"

say "toolkit deploy $file"
trap '"$toolkit" stop "$name" >/dev/null 2>&1 || true' EXIT
"$toolkit" deploy "$file"

say "toolkit bench $file"
"$toolkit" bench "$file" --scenario smoke --duration 8s --output "$TOOLKIT_WORKSPACE/bench/$name"

url="$("$toolkit" status "$name" --json | sed -n 's/.*"\(http:[^"]*\)".*/\1/p' | grep -v metrics | head -n 1)"
request='{"text_input": "The capital of France is", "max_tokens": 16, "stream": false}'
say "curl -s $url/v2/models/$name/generate -d '$request'"
if command -v curl >/dev/null; then
    curl -sS --fail "$url/v2/models/$name/generate" -d "$request"
    echo
else
    echo "(curl is not installed here)"
fi

say "toolkit stop $name"
trap - EXIT
"$toolkit" stop "$name"
