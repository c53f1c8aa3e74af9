"""One deployment file in; a quantized, compiled, served, validated and measured LLM out."""

__version__ = "0.1.0"
