"""Deployment files of published models, and a fleet file that lists them."""

from __future__ import annotations

from pathlib import Path

from config_files import write_config

MODELS = {
    "chat": ("8b", "quantization: {weights: fp8, kv_cache: fp8}\nserving: {gpu: H100}\n"),
    "small": ("1b", "engine: {runtime: pytorch, limits: {max_batch_size: 32}}\n"),
    "large": (
        "70b",
        "quantization: {weights: fp8}\n"
        "engine: {runtime: pytorch, parallelism: {tensor: 2}}\n"
        "serving: {gpus: [0, 1]}\n",
    ),
    "any": ("1b", ""),
    "cpu": ("1b", "engine: {runtime: openvino, limits: {max_batch_size: 4}}\n"),
}


def write_fleet(folder: Path, text: str, name: str = "fleet.yaml") -> Path:
    """The fleet file of ``text`` in ``folder``, beside the file of each of :data:`MODELS`."""
    for model, (shape, more) in MODELS.items():
        source = folder / f"model-{shape}"
        source.mkdir(exist_ok=True)
        write_config(source, shape).rename(source / "config.json")
        (folder / f"{model}.yaml").write_text(
            f"name: {model}\nmodel: {{source: ./{source.name}}}\n{more}"
        )
    path = folder / name
    path.write_text(text)
    return path
