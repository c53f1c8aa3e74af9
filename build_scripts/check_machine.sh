#!/usr/bin/env bash
# What pip cannot install: the interpreter with its venv module, and the library that Triton's
# python stub is linked to. Says what to install, and exits 1, where one of them is missing.
set -euo pipefail

python="${1:-python3}"

fail() {
    printf 'error: %s\n hint: %s\n' "$1" "$2" >&2
    exit 1
}

command -v "$python" >/dev/null ||
    fail "$python is not installed" "apt-get install python3 python3-venv, or set PYTHON=..."

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "$("$python" --version) is too old" "Python 3.10 or newer is needed; set PYTHON=..."

"$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python has no venv module" "apt-get install python3-venv"

"$python" - <<'PY' || fail "Triton's python stub needs the shared libpython of $("$python" --version)" \
    "apt-get install libpython$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
import ctypes, sys, sysconfig
from pathlib import Path

name = "libpython%d.%d.so.1.0" % sys.version_info[:2]
beside = Path(sysconfig.get_config_var("LIBDIR") or "/nonexistent") / name
if not beside.exists():
    try:
        ctypes.CDLL(name)
    except OSError:
        sys.exit(1)
PY
