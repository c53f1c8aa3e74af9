"""The Triton model repository: rendered from templates, checked without a server.

``render.render`` writes it, ``check.check_static`` checks it.
"""
