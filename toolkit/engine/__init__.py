"""From a checkpoint to an engine: one folder a runtime."""
