"""The deployment file: models, loading, presets."""
