"""Two reports of one workload: what changed, and does it pass the limits set for it.

``figures`` names what can be compared, ``gates`` reads limits such as ``ttft_p95 > +10%``,
``matching`` decides which loads of two reports belong together, ``change`` says how far a
difference can be trusted, ``judging`` turns it into verdicts, ``tables`` shows them.
"""

from toolkit.bench.compare.comparison import Comparison
from toolkit.bench.compare.gates import Gate, parse_gate
from toolkit.bench.compare.judging import compare

__all__ = ["Comparison", "Gate", "compare", "parse_gate"]
