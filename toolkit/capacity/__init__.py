"""What a deployment needs of a GPU, worked out before anything runs."""

from toolkit.capacity.memory import fit
from toolkit.capacity.plan import Line, MemoryPlan

__all__ = ["Line", "MemoryPlan", "fit"]
