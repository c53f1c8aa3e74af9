"""``python -m toolkit.gateway PLAN``: one gateway, as the supervisor starts it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from toolkit.errors import ToolkitError
from toolkit.gateway.plan import GatewayPlan
from toolkit.gateway.server import run


def main(arguments: list[str]) -> int:
    """Serve the plan; the server beside which it runs is a replica of its first model."""
    parser = argparse.ArgumentParser(prog="toolkit.gateway")
    parser.add_argument("plan", type=Path)
    parser.add_argument("--port", type=int)
    parser.add_argument("--replica")
    options = parser.parse_args(arguments)
    plan = GatewayPlan.model_validate_json(options.plan.read_bytes())
    if options.replica:
        first, *others = plan.models
        with_own = first.model_copy(update={"addresses": (options.replica, *first.addresses)})
        plan = plan.model_copy(update={"models": (with_own, *others)})
    try:
        run(plan, options.port)
    except ToolkitError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
