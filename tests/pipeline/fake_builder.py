"""A ``trtllm-build`` that writes what the real one leaves behind, without a GPU."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS / "engine"))
sys.path.insert(0, str(TESTS / "checkpoint"))

_PROGRAM = """\
#!{interpreter}
import json, os, sys, time
from pathlib import Path
sys.path[:0] = [{engine!r}, {root!r}]
from built_engine import flags_of, write_engine
from toolkit.engine.tensorrt import Command
print("[TensorRT-LLM] building", flush=True)
if os.environ.get("FAKE_BUILD") == "fail":
    print("[E] Out of memory: tactic needs 5 GiB", flush=True)
    sys.exit(3)
command = Command("target", ("trtllm-build", *sys.argv[1:]), (), "", 1)
flags = flags_of(command)
with open({calls!r}, "a") as file:
    file.write(json.dumps(sys.argv) + "\\n")
if os.environ.get("FAKE_BUILD") == "nothing":
    sys.exit(0)
if os.environ.get("FAKE_BUILD") == "hang":
    Path({calls!r}).with_name("pid").write_text(str(os.getpid()))
    time.sleep(600)
source = json.loads((Path(flags["checkpoint_dir"]) / "config.json").read_text())
ways = source["mapping"]
formats = {{key: source["quantization"][key] for key in ("quant_algo", "kv_cache_quant_algo")}}
change = json.loads(os.environ.get("FAKE_CHANGE", "{{}}"))
write_engine(
    Path(flags["output_dir"]), command, version={version!r}, layers=source["num_hidden_layers"],
    tensor=ways["tp_size"], pipeline=ways["pp_size"], model=source,
    tree_layers=source.get("num_eagle_layers", 0),
    **{{**formats, **change}},
)
"""
_INTERPRETER = """\
#!/bin/sh
if [ "$1" = "-c" ]; then echo {version}; exit 0; fi
exec {python} "$@"
"""
_SCRIPTS = """\
#!{python}
import json, os, sys
from pathlib import Path
script, options = Path(sys.argv[1]), dict(zip(sys.argv[2::2], sys.argv[3::2]))
with open({calls!r}, "a") as file:
    file.write(json.dumps(sys.argv) + "\\n")
if script.name == "hf_lora_convert.py":
    out, source = Path(options["--out-dir"]), Path(options["--in-file"])
    out.mkdir(parents=True, exist_ok=True)
    weights = (source / "adapter_model.safetensors").read_bytes()
    (out / "model.lora_weights.npy").write_bytes(weights)
    (out / "model.lora_config.npy").write_bytes((source / "adapter_config.json").read_bytes())
elif script.name == "convert_checkpoint.py":
    out = Path(options["--output_dir"])
    out.mkdir(parents=True, exist_ok=True)
    config = json.loads((Path(options["--model_dir"]) / "config.json").read_text())
    ways = {{"tp_size": int(options["--tp_size"]), "pp_size": int(options["--pp_size"])}}
    formats = {{"quant_algo": None, "kv_cache_quant_algo": None}}
    made = {{
        "architecture": script.parent.name, "dtype": options["--dtype"],
        "num_hidden_layers": config["num_hidden_layers"], "vocab_size": config["vocab_size"],
        "mapping": {{**ways, "world_size": ways["tp_size"] * ways["pp_size"]}},
        "quantization": formats, "num_eagle_layers": int(options.get("--num_eagle_layers", 0)),
    }}
    (out / "config.json").write_text(json.dumps(made))
else:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
"""


class Builder:
    """The program on the path, and what it was called with."""

    def __init__(self, folder: Path, version: str) -> None:
        self._calls = folder / "calls"
        interpreter = folder / "python"
        interpreter.write_text(_INTERPRETER.format(version=version, python=sys.executable))
        program = folder / "trtllm-build"
        program.write_text(
            _PROGRAM.format(
                interpreter=interpreter,
                engine=str(TESTS / "engine"),
                root=str(TESTS.parent),
                calls=str(self._calls),
                version=version,
            )
        )
        scripts = folder / "python3"
        scripts.write_text(_SCRIPTS.format(python=sys.executable, calls=str(self._calls)))
        for file in (interpreter, program, scripts):
            file.chmod(0o755)

    @property
    def process(self) -> int | None:
        """Of the build that hangs, once it does."""
        file = self._calls.with_name("pid")
        return int(file.read_text()) if file.exists() and file.read_text() else None

    @property
    def calls(self) -> list[list[str]]:
        """The command lines so far, without the program; of a script with its name first."""
        if not self._calls.exists():
            return []
        return [json.loads(line)[1:] for line in self._calls.read_text().splitlines()]


def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, version: str = "1.2.1") -> Builder:
    """Put a builder of that release on the path."""
    folder = tmp_path / f"bin-{version}"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return Builder(folder, version)
