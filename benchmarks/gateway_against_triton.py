"""What the gateway costs on top of Triton's own gRPC.

    python benchmarks/gateway_against_triton.py examples/smollm2.yaml

Needs the file deployed with its gateway. Both ways to the same server are measured in turn with
the same prompts, A B B A: token throughput at 64 streams, median TTFT at one. Six blocks of about
a minute; the cost is far below the drift of the machine, so it is the confidence interval that
counts.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from in_turn import Method, compare, serve

from toolkit.bench.endpoint import find_deployed, target_at
from toolkit.bench.vocabulary import Tokens
from toolkit.spec.loading import load


def main() -> None:
    """Parse, measure in turn, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("deployment", type=Path)
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--minutes", type=float, default=6.0, help="No block ends much later.")
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--duration", type=float, default=8.0)
    parser.add_argument("--warmup", type=float, default=4.0)
    parser.add_argument("--requests", type=int, default=12)
    parser.add_argument("--worker", choices=["direct", "gateway"])
    options = parser.parse_args()
    deployment = load(options.deployment).deployment
    deployed = find_deployed(
        deployment, options.workspace or options.deployment.parent / ".toolkit"
    )
    assert deployed.tokenizer, "the repository has no tokenizer"
    words = Tokens(deployed.tokenizer)
    method = Method(words, options.streams, options.duration, options.warmup, options.requests)
    if options.worker is None:
        compare("direct", "gateway", options.blocks, options.minutes)
        return
    protocol = "grpc" if options.worker == "direct" else "openai"
    url = deployed.url(protocol)
    asyncio.run(serve(target_at(url, deployment.name, protocol, timeout=300), method))


if __name__ == "__main__":
    main()
