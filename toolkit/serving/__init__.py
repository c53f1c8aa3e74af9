"""Serving: find or install a Triton, launch it, keep it alive, prove that it does its work."""
