#!/usr/bin/env bash
# The steps of a deployment's pipeline; gitlab.yml and github.yml call nothing else.
#   pipeline.sh STEP FILE      STEP: check, build, validate, bench, stop, all
#
# TOOLKIT         command of the toolkit (default: toolkit)
# REPORTS         where JUnit XML, JSON and HTML go (default: reports)
# BUILD_WHERE     local, or container: the release's own image (default: local)
# SCENARIO        what bench runs (default: smoke)
# BASELINE        report.json to compare with (default: $REPORTS/baseline/report.json)
# MAX_REGRESSION  accepted loss against it, 0.10 = 10 % (default), beyond the confidence intervals
# KEEP_BASELINE   1: a run that passed becomes the baseline (set it on the main branch only)
#
# Exit codes are the toolkit's: 2 file, 3 machine, 4 build, 5 validation or regression, 6 server.
set -euo pipefail

usage="usage: pipeline.sh check|build|validate|bench|stop|all FILE"
step="${1:?$usage}"
file="${2:?$usage}"
here="$(dirname "$(realpath -- "$0")")"

toolkit="${TOOLKIT:-toolkit}"
python="${PYTHON:-python3}"
reports="${REPORTS:-reports}"
where="${BUILD_WHERE:-local}"
scenario="${SCENARIO:-smoke}"
baseline="${BASELINE:-$reports/baseline/report.json}"
mkdir -p "$reports"

say() { printf '\n== %s\n' "$*"; }

check() {
    say "what the machine lacks"
    "$toolkit" doctor "$file"
}

build() {
    say "build ($where)"
    "$toolkit" build "$file" --where "$where" --json >"$reports/build.json"
}

validate() {
    say "deploy and validate"
    "$toolkit" deploy "$file" --no-validate --replace
    "$toolkit" validate "$file" --junit "$reports/validation.xml"
}

bench() {
    say "measure ($scenario)"
    "$toolkit" bench "$file" --scenario "$scenario" --output "$reports/bench" --fail-on-errors
    "$python" "$here/compare_bench.py" "$baseline" "$reports/bench/report.json" \
        --max-regression "${MAX_REGRESSION:-0.10}"
    if [[ ${KEEP_BASELINE:-0} == 1 ]]; then
        mkdir -p "$(dirname "$baseline")"
        cp "$reports/bench/report.json" "$baseline"
    fi
}

stop() {
    say "stop"
    "$toolkit" stop "$file"
}

all() {
    check
    build
    # Whatever happens next, nothing is left running.
    trap 'stop || true' EXIT
    validate
    bench
}

case "$step" in
check | build | validate | bench | stop | all) "$step" ;;
*)
    printf '%s\n' "$usage" >&2
    exit 2
    ;;
esac
