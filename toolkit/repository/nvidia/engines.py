"""Compare the rendered limits of the engine path with the engines that lie in the repository."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from toolkit.engine.tensorrt import EngineConfig, read_engine_config
from toolkit.errors import SpecError
from toolkit.releases import Release
from toolkit.repository.configs import Configs
from toolkit.repository.findings import Finding
from toolkit.repository.layout import VERSION
from toolkit.repository.nvidia.tensorrt import DRAFT, TARGET

ENGINE = "engine"


def engine_findings(
    repository: Path, configs: Configs, settings: Mapping[str, Any], table: Release
) -> Iterator[Finding]:
    """Engines that are missing, of another release, or too small for what is rendered."""
    found: dict[str, EngineConfig] = {}
    for model in (TARGET, DRAFT):
        if model not in configs:
            continue
        folder = repository / model / VERSION / ENGINE
        where = str(folder.relative_to(repository))
        try:
            found[model] = read_engine_config(folder)
        except SpecError as error:
            yield Finding(where, error.message, hint="build the engine, then render again")
            continue
        parameters = {n: p.string_value for n, p in configs[model].parameters.items()}
        problems = [
            *_files(folder, found[model]),
            *_engine(found[model], configs[model], settings, table, model),
            *_parameters(found[model], parameters, settings, model),
            *_devices(found[model], configs[model], parameters),
        ]
        for message in problems:
            yield Finding(where, message)
    if len(found) > 1 and found[TARGET].vocab_size != found[DRAFT].vocab_size:
        message = (
            f"the draft's vocabulary ({found[DRAFT].vocab_size}) is not the target's "
            f"({found[TARGET].vocab_size})"
        )
        yield Finding(f"{DRAFT}/{VERSION}/{ENGINE}", message)
    yield from _adapters(repository, configs, settings)
    yield from _shares(configs)
    yield from _tokenizer_info(repository, configs)


def _files(folder: Path, engine: EngineConfig) -> Iterator[str]:
    for rank in range(engine.world_size):
        if not (folder / f"rank{rank}.engine").is_file():
            yield f"rank{rank}.engine is missing"


def _engine(
    engine: EngineConfig, config: Any, settings: Mapping[str, Any], table: Release, model: str
) -> Iterator[str]:
    if not table.covers(engine.version):
        yield f"was built by TensorRT-LLM {engine.version}, the deployment is for {table.version}"
    if engine.kv_cache_type != "paged":
        yield f"has a {engine.kv_cache_type} KV cache; in-flight batching needs a paged one"
    if engine.max_batch_size < config.max_batch_size:
        yield f"was built for {engine.max_batch_size} requests, not {config.max_batch_size}"
    for name in ("max_input_len", "max_seq_len"):
        built, wanted = getattr(engine, name), settings["limits"][name]
        if built < wanted:
            yield f"was built for {name} {built}, not {wanted}"
    drafted = model == TARGET and settings["engine"].get("draft")
    if drafted and engine.speculative_mode != "draft_tokens_external":
        yield f"was not built to verify drafts (speculative mode {engine.speculative_mode})"
    if drafted and engine.max_draft_len < settings["engine"]["max_draft_len"]:
        yield f"verifies {engine.max_draft_len} drafts at once, not " + str(
            settings["engine"]["max_draft_len"]
        )


def _parameters(
    engine: EngineConfig, parameters: Mapping[str, str], settings: Mapping[str, Any], model: str
) -> Iterator[str]:
    if PurePosixPath(parameters.get("gpt_model_path", "")).parts[-3:] != (model, VERSION, ENGINE):
        yield f"gpt_model_path is {parameters.get('gpt_model_path')!r}, the engine lies elsewhere"
    for name in ("enable_kv_cache_reuse", "enable_chunked_context"):
        if parameters.get(name) == "true" and not engine.plugin("use_paged_context_fmha"):
            yield f"{name} needs an engine with paged context attention"
    if _number(parameters.get("max_beam_width", "1")) > engine.max_beam_width:
        yield f"was built for beam width {engine.max_beam_width}"
    pool = parameters.get("max_tokens_in_paged_kv_cache")
    if pool is not None and _number(pool) < settings["limits"]["max_seq_len"]:
        yield f"the KV cache of {pool} tokens holds no request of max_seq_len"
    rank = parameters.get("lora_cache_max_adapter_size")
    if rank is not None and (engine.max_lora_rank or 0) < _number(rank):
        yield f"was built for LoRA rank {engine.max_lora_rank}, not {rank}"


def _devices(engine: EngineConfig, config: Any, parameters: Mapping[str, str]) -> Iterator[str]:
    lists = [each.split(",") for each in parameters.get("gpu_device_ids", "").split(";")]
    instances = sum(group.count or 1 for group in config.instance_group)
    if len(lists) != instances:
        yield f"{instances} instances for {len(lists)} lists of GPUs"
    if any(len(each) != engine.world_size for each in lists):
        yield f"was built for {engine.world_size} GPUs, gpu_device_ids lists {lists}"
    used = [gpu for each in lists for gpu in each]
    if len(used) != len(set(used)):
        yield f"instances share GPUs: {lists}"


def _adapters(repository: Path, configs: Configs, settings: Mapping[str, Any]) -> Iterator[Finding]:
    """The backend loads ``NUMBER/model.lora_*.npy``; what it does not find it passes over."""
    if TARGET not in configs or "lora_prefetch_dir" not in configs[TARGET].parameters:
        return
    folder = repository / TARGET / VERSION / "adapters"
    for name, number in settings["engine"].get("adapters", {}).items():
        for file in ("model.lora_weights.npy", "model.lora_config.npy"):
            if not (folder / str(number) / file).is_file():
                place = str((folder / str(number)).relative_to(repository))
                hint = "convert the adapter with TensorRT-LLM's examples/hf_lora_convert.py"
                yield Finding(place, f"{file} of adapter {name!r} is missing", hint=hint)


def _shares(configs: Configs) -> Iterator[Finding]:
    """Two engines on the same GPUs must not both take most of the memory that is free."""
    fractions = []
    for model in (TARGET, DRAFT):
        if model in configs and "max_tokens_in_paged_kv_cache" not in configs[model].parameters:
            value = configs[model].parameters.get("kv_cache_free_gpu_mem_fraction")
            fractions.append(_number(value.string_value if value else "0.9"))
    if sum(fractions) > 1:
        message = f"the engines ask for {' + '.join(map(str, fractions))} of the free memory"
        yield Finding(
            f"{TARGET}/config.pbtxt", message, hint="lower kv_cache_free_gpu_mem_fraction"
        )


def _tokenizer_info(repository: Path, configs: Configs) -> Iterator[Finding]:
    if TARGET not in configs:
        return
    path = configs[TARGET].parameters.get("xgrammar_tokenizer_info_path")
    if path is not None:
        file = repository / TARGET / VERSION / PurePosixPath(path.string_value).name
        if not file.is_file():
            yield Finding(f"{TARGET}/config.pbtxt", f"{path.string_value} is not there")


def _number(text: str) -> float:
    """The number, or 0 for what is none: that is found where parameters are compared."""
    try:
        return float(text)
    except ValueError:
        return 0.0
