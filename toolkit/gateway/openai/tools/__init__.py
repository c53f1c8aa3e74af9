"""Calls of tools: how model families write them, and how they are read while they come."""
