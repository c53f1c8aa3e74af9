"""What Triton, the python backend and a streaming client cost on top of the bare engine.

    python benchmarks/triton_against_engine.py examples/smollm2.yaml

Needs the file deployed. The server and the same engine in a process of its own are measured in
turn with the same prompts: token throughput at 32 streams, median TTFT at one. Both processes
stay up throughout; the one that is not being measured has nothing to do.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from engine_target import EngineTarget
from in_turn import Method, compare, serve

from toolkit.bench.endpoint import find_deployed, target_at
from toolkit.bench.target import Target
from toolkit.bench.vocabulary import Tokens
from toolkit.spec.loading import load


def main() -> None:
    """Parse, measure in turn, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("deployment", type=Path)
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--minutes", type=float, default=6.0, help="No block ends much later.")
    parser.add_argument("--duration", type=float, default=8.0)
    parser.add_argument("--warmup", type=float, default=4.0)
    parser.add_argument("--requests", type=int, default=12)
    parser.add_argument("--worker", choices=["Triton", "engine"])
    options = parser.parse_args()
    deployment = load(options.deployment).deployment
    root = options.workspace or options.deployment.parent / ".toolkit"
    deployed = find_deployed(deployment, root)
    assert deployed.tokenizer, "the repository has no tokenizer"
    words = Tokens(deployed.tokenizer)
    method = Method(words, 32, options.duration, options.warmup, options.requests)
    if options.worker is None:
        compare("engine", "Triton", options.blocks, options.minutes)
        return
    target: Target = EngineTarget(deployed.tokenizer.parent)
    if options.worker == "Triton":
        target = target_at(deployed.grpc_url, deployment.name, "grpc", timeout=300)
    asyncio.run(serve(target, method))


if __name__ == "__main__":
    main()
