"""The Triton model repository: rendered from templates, checked without a server."""
