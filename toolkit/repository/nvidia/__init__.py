"""Repositories of the NVIDIA runtimes: what their models are, from release table and deployment.

``view`` types what a template prints, ``tensorrt`` and ``pytorch`` say which models a deployment
has, ``writing`` renders them, ``checking`` proves a rendered repository against the table.
"""

from toolkit.repository.nvidia.writing import preview_nvidia, render_nvidia

__all__ = ["preview_nvidia", "render_nvidia"]
