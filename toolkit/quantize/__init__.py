"""ModelOpt post-training quantization: formats, calibration, export, export check, accuracy gate.

Importing it loads neither torch nor ModelOpt; see :mod:`toolkit.quantize.child` for where the
work is done.
"""

from toolkit.quantize.check import ResolvedQuantization, check
from toolkit.quantize.report import QuantizationReport
from toolkit.quantize.run import quantize

__all__ = ["QuantizationReport", "ResolvedQuantization", "check", "quantize"]
