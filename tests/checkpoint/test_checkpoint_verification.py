from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_checkpoints import tiny_config, tiny_tensors, tiny_tokenizer, write_checkpoint

from toolkit.checkpoint import CheckpointReport, examine, inspect, verify
from toolkit.errors import SpecError

INDEX = "model.safetensors.index.json"


def change_json(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text())
    content.update(changes)
    path.write_text(json.dumps(content))


def change_tensors(directory: Path, **changes: Any) -> None:
    tensors = load_file(directory / "model.safetensors")
    for name, value in changes.items():
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value
    save_file(tensors, directory / "model.safetensors")


def faults(report: CheckpointReport) -> list[str]:
    return [problem.message for problem in report.faults]


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("shards", [1, 3])
def test_a_sound_checkpoint_has_no_problem(tmp_path: Path, family: str, shards: int) -> None:
    report = verify(write_checkpoint(tmp_path / "x", family, shards=shards), deep=True)
    assert report.problems == ()
    assert report.values_checked


def test_a_missing_shard(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "x", shards=2)
    (path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(SpecError, match=r"model-00002-of-00002\.safetensors is missing") as caught:
        verify(path)
    assert (caught.value.where or "").endswith(INDEX)


def test_shards_of_two_versions(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "x", shards=2)
    index = json.loads((path / INDEX).read_text())
    moved = next(iter(index["weight_map"]))
    index["weight_map"][moved] = "model-00002-of-00002.safetensors"
    (path / INDEX).write_text(json.dumps(index))
    assert any("though the index says so" in fault for fault in faults(examine(path)))


def test_a_tensor_that_the_index_forgets_counts_as_missing(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "x", shards=2)
    index = json.loads((path / INDEX).read_text())
    del index["weight_map"]["model.norm.weight"]
    (path / INDEX).write_text(json.dumps(index))
    assert faults(examine(path)) == ["tensor 'model.norm.weight' is missing"]


@pytest.mark.parametrize("target", ["../secret.safetensors", "/etc/passwd", "a/b.safetensors"])
def test_an_index_cannot_point_outside(tmp_path: Path, target: str) -> None:
    path = write_checkpoint(tmp_path / "x", shards=2)
    change_json(path / INDEX, weight_map={"model.norm.weight": target})
    assert any("a file outside" in fault for fault in faults(examine(path)))


def test_a_tensor_in_two_files(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "x", shards=2)
    first, second = sorted(path.glob("model-*.safetensors"))
    save_file(load_file(first) | load_file(second), second)
    assert any("and in model-00002" in fault for fault in faults(examine(path)))


def test_several_files_without_an_index(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "x", shards=2)
    (path / INDEX).unlink()
    assert any("no model.safetensors.index.json" in fault for fault in faults(examine(path)))


def test_all_faults_are_reported_at_once(checkpoint: Path) -> None:
    wrong = np.zeros((5, 5), ml_dtypes.bfloat16)
    change_tensors(
        checkpoint,
        **{"model.norm.weight": None, "model.layers.0.mlp.up_proj.weight": wrong},
    )
    (checkpoint / "tokenizer.json").unlink()
    with pytest.raises(SpecError) as caught:
        verify(checkpoint)
    text = "\n".join([caught.value.message, *caught.value.details])
    assert "'model.norm.weight' is missing" in text
    assert "up_proj.weight' is 5x5, config.json asks for 48x32" in text
    assert "no tokenizer" in text


def test_weights_of_another_config(checkpoint: Path) -> None:
    change_json(checkpoint / "config.json", vocab_size=80)
    assert faults(examine(checkpoint)) == [
        "tensor 'model.embed_tokens.weight' is 64x32, config.json asks for 80x32",
        "tensor 'lm_head.weight' is 64x32, config.json asks for 80x32",
    ]


def test_a_truncated_file(checkpoint: Path) -> None:
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(SpecError, match="is truncated"):
        verify(checkpoint)


class TestSafety:
    @pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "x.pkl", "last.ckpt"])
    def test_pickles_alone_are_refused(self, checkpoint: Path, name: str) -> None:
        (checkpoint / "model.safetensors").unlink()
        (checkpoint / name).write_bytes(b"pickle")
        report = examine(checkpoint)
        assert any(message.startswith(f"{name} is a pickle file") for message in faults(report))
        assert any(f"allow_pickle: [{name}]" in (fault.hint or "") for fault in report.faults)

    def test_a_pickle_beside_safetensors_is_only_noted(self, checkpoint: Path) -> None:
        (checkpoint / "pytorch_model.bin").write_bytes(b"pickle")
        report = verify(checkpoint)
        assert [note.fatal for note in report.problems] == [False]
        assert "pytorch_model.bin" not in report.files

    def test_a_pickle_is_allowed_by_its_name_only(self, checkpoint: Path) -> None:
        (checkpoint / "model.safetensors").unlink()
        (checkpoint / "pytorch_model.bin").write_bytes(b"pickle")
        (checkpoint / "other.bin").write_bytes(b"pickle")
        report = examine(checkpoint, ["pytorch_model.bin"])
        assert [message.split()[0] for message in faults(report)] == ["other.bin"]

    def test_code_of_its_own_is_noticed(self, checkpoint: Path) -> None:
        change_json(checkpoint / "config.json", auto_map={"AutoModelForCausalLM": "m.Model"})
        assert "auto_map" in verify(checkpoint).warnings[0].message


class TestTokenizer:
    def test_of_a_larger_vocabulary(self, checkpoint: Path) -> None:
        tiny_tokenizer(checkpoint / "tokenizer.json", size=100)
        assert faults(examine(checkpoint)) == [
            "the tokenizer has token 99, but the model's vocabulary ends at 63"
        ]

    def test_end_token_outside(self, checkpoint: Path) -> None:
        change_json(checkpoint / "generation_config.json", eos_token_id=64)
        assert faults(examine(checkpoint)) == ["eos_token_id 64 is outside the vocabulary"]

    def test_damaged(self, checkpoint: Path) -> None:
        (checkpoint / "tokenizer.json").write_text("{")
        assert any("tokenizer.json is not JSON" in fault for fault in faults(examine(checkpoint)))


class TestValues:
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize(
        "dtype", [ml_dtypes.bfloat16, np.float16, np.float32, ml_dtypes.float8_e5m2]
    )
    def test_not_finite(self, checkpoint: Path, value: float, dtype: type) -> None:
        weight = np.ones((48, 32), dtype)
        weight[7, 3] = value
        change_tensors(checkpoint, **{"model.layers.0.mlp.up_proj.weight": weight})
        assert examine(checkpoint).faults == ()
        assert faults(examine(checkpoint, deep=True)) == [
            "tensor 'model.layers.0.mlp.up_proj.weight' has 1 of 1536 values that are NaN or "
            "infinite"
        ]

    def test_nan_of_float8_e4m3_but_not_its_largest_number(self, checkpoint: Path) -> None:
        weight = np.full((48, 32), 448, ml_dtypes.float8_e4m3fn)
        change_tensors(checkpoint, **{"model.layers.0.mlp.up_proj.weight": weight})
        assert examine(checkpoint, deep=True).faults == ()
        save_file(tiny_tensors(tiny_config()), checkpoint / "model.safetensors")
        weight[0, 0] = np.nan
        change_tensors(checkpoint, **{"model.layers.0.mlp.up_proj.weight": weight})
        assert len(examine(checkpoint, deep=True).faults) == 1

    def test_a_hole_in_the_file(self, checkpoint: Path) -> None:
        zeros = np.zeros((48, 32), ml_dtypes.bfloat16)
        change_tensors(checkpoint, **{"model.layers.0.mlp.up_proj.weight": zeros})
        assert examine(checkpoint, deep=True).faults[0].message.endswith("is all zeros")


class TestDigests:
    def record(self, checkpoint: Path, kind: str) -> None:
        content = (checkpoint / "model.safetensors").read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if kind == "sums":
            (checkpoint / "SHA256SUMS").write_text(f"{digest}  model.safetensors\n")
        elif kind == "sidecar":
            (checkpoint / "model.safetensors.sha256").write_text(digest.upper())
        else:
            folder = checkpoint / ".cache" / "huggingface" / "download"
            folder.mkdir(parents=True)
            text = f"{'c' * 40}\n{digest}\n1700000000.0\n"
            (folder / "model.safetensors.metadata").write_text(text)

    @pytest.mark.parametrize("kind", ["sums", "sidecar", "hub"])
    def test_records_are_held_against_the_file(self, checkpoint: Path, kind: str) -> None:
        self.record(checkpoint, kind)
        assert verify(checkpoint).digests_checked == 1
        file = checkpoint / "model.safetensors"
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        with pytest.raises(SpecError, match="digest differs"):
            verify(checkpoint)
        assert verify(checkpoint, digests=False).digests_checked == 0


class TestQuantized:
    def quantized(self, checkpoint: Path, method: str) -> Path:
        change_json(checkpoint / "config.json", quantization_config={"quant_method": method})
        name = "model.layers.0.mlp.up_proj.weight"
        changes = {
            name: np.zeros((24, 32), np.uint8),
            f"{name}_scale": np.ones((48, 2), np.float32),
            "model.layers.0.self_attn.k_proj.k_scale": np.array(1, np.float32),
        }
        change_tensors(checkpoint, **changes)
        return checkpoint

    def test_modelopts_packed_weights_and_scales_are_fine(self, checkpoint: Path) -> None:
        assert verify(self.quantized(checkpoint, "modelopt")).problems == ()

    def test_a_weight_that_is_missing_is_still_found(self, checkpoint: Path) -> None:
        path = self.quantized(checkpoint, "modelopt")
        change_tensors(path, **{"model.layers.1.mlp.down_proj.weight": None})
        assert faults(examine(path)) == ["tensor 'model.layers.1.mlp.down_proj.weight' is missing"]

    def test_another_methods_packing_is_left_alone_and_said(self, checkpoint: Path) -> None:
        report = verify(self.quantized(checkpoint, "gptq"))
        assert [warning.message for warning in report.warnings] == [
            "weights are packed by 'gptq', so shapes are unchecked"
        ]


class TestSummary:
    def test_counts_by_type(self, checkpoint: Path) -> None:
        change_tensors(checkpoint, **{"model.norm.weight": np.ones(32, np.float32)})
        summary = inspect(checkpoint)
        assert summary.parameters == summary.architecture.parameters
        assert summary.by_dtype["F32"].bytes == 128
        assert summary.by_dtype["BF16"].bytes == 2 * (summary.parameters - 32)
        assert summary.bytes == sum(share.bytes for share in summary.by_dtype.values())
        assert summary.kv_bytes_per_token == {"16 bit": 2 * 2 * 2 * 8 * 2, "8 bit": 2 * 2 * 2 * 8}

    def test_embeddings_stored_twice_count_once(self, tmp_path: Path) -> None:
        path = write_checkpoint(tmp_path / "x", tie_word_embeddings=True)
        once = inspect(path).parameters
        change_tensors(path, **{"lm_head.weight": np.ones((64, 32), ml_dtypes.bfloat16)})
        assert inspect(path).parameters == once == inspect(path).architecture.parameters

    def test_of_a_family_that_is_not_known(self, checkpoint: Path) -> None:
        change_json(checkpoint / "config.json", model_type="gemma2")
        expected = sum(value.size for value in tiny_tensors(tiny_config()).values())
        assert inspect(checkpoint).parameters == expected
        assert "not known" in verify(checkpoint).warnings[0].message
