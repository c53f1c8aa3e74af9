"""``toolkit bench``: measure latency and throughput of a deployment or of any Triton.

One module holds one group of options, a dataclass with what its flags mean (``place``, ``load``,
``prompts``, ``judge``); ``run`` takes each as a parameter and is the only place that knows them
all. Commands below ``bench`` stand in a module of their own and are added in ``group``.
"""

from toolkit.cli.bench.group import register

__all__ = ["register"]
