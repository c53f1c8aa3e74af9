"""The command line: one module a command, loaded when it is used."""

from __future__ import annotations


def main() -> int:
    """Console script ``toolkit``: run the command of ``sys.argv``, return its exit code."""
    import sys

    from toolkit.cli.app import run

    return run(sys.argv[1:])
