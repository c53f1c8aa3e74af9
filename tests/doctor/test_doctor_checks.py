"""What the doctor finds on each machine, and that it says how to mend it."""

from __future__ import annotations

import os
import resource
import socket
from pathlib import Path

import pytest
from machines import (
    A100,
    H100,
    L4,
    RTX,
    SOCKETS,
    Told,
    bare,
    broken_driver,
    docker_info,
    with_gpus,
)

from toolkit import releases
from toolkit.doctor import CHECKS, Report, examine
from toolkit.doctor.check import Finding
from toolkit.doctor.machine import Answer
from toolkit.doctor.need import need_of, source_bytes
from toolkit.spec.models import Deployment
from toolkit.workspace import record_use

SOURCE = "hf://meta-llama/Llama-3.1-8B-Instruct@main"


def deployment(runtime: str = "pytorch", **fields: object) -> Deployment:
    engine: dict[str, object] = {"runtime": runtime}
    serving: dict[str, object] = {
        "launcher": "container",
        "ports": {"http": 0, "grpc": 0, "metrics": 0},
    }
    made: dict[str, object] = {"name": "chat", "model": {"source": SOURCE}}
    for key, value in fields.items():
        if key in ("parallelism", "release", "kv_cache", "speculation"):
            engine[key] = value
        elif key in ("quantization", "model"):
            made[key] = value
        else:
            serving[key] = value
    return Deployment.model_validate({**made, "engine": engine, "serving": serving})


@pytest.fixture
def look(tmp_path: Path) -> object:
    def run(machine: Told, made: Deployment | None = None) -> Report:
        return examine(made, machine=machine, workspace=tmp_path / "w")

    return run


def finding(report: Report, name: str) -> Finding:
    (found,) = (each for each in report.findings if each.name == name)
    return found


def test_good_machine_has_nothing_to_mend(look) -> None:  # type: ignore[no-untyped-def]
    made = deployment(gpus=[0, 1], parallelism={"tensor": 2}, quantization={"weights": "fp8"})
    report = look(with_gpus(*[H100] * 4, driver="590.48.01", cuda="13.1"), made)
    assert report.failed == ()
    assert finding(report, "gpu links").detail == "NVLink between all of them"
    assert report.can_serve == ("pytorch", "tensorrt", "openvino")


def test_every_failure_and_warning_says_how_to_mend(look) -> None:  # type: ignore[no-untyped-def]
    seen = set()
    for machine in (
        bare(),
        broken_driver(),
        with_gpus(A100, A100, mig="Enabled", driver="535.1.2", links=SOCKETS, cell="CNS"),
        with_gpus(H100, used=40_000, driver="470.1.1"),
    ):
        made = deployment(gpus=[0, 1], parallelism={"tensor": 2}, quantization={"weights": "fp8"})
        for each in look(machine, made).findings:
            if each.status == "fail":
                assert each.mend, each
                seen.add(each.name)
    assert {"gpu", "driver", "compute capability", "mig", "container engine"} <= seen


def test_no_gpu_means_cpu_only(look) -> None:  # type: ignore[no-untyped-def]
    report = look(bare())
    assert report.failed == ()
    found = finding(report, "gpu")
    assert found.status == "warn"
    assert "only the CPU runtime works here" in found.detail
    assert report.can_serve == ("openvino",)
    assert finding(look(bare(), deployment()), "gpu").status == "fail"


def test_driver_that_is_not_running_is_no_missing_gpu(look) -> None:  # type: ignore[no-untyped-def]
    found = finding(look(broken_driver()), "gpu")
    assert found.status == "fail"
    assert "driver" in found.mend


def test_old_driver_names_the_one_it_needs_and_what_runs_instead(look) -> None:  # type: ignore[no-untyped-def]
    found = finding(look(with_gpus(RTX, driver="576.2.1"), deployment(release="1.2.1")), "driver")
    assert found.status == "fail"
    image = releases.release("1.2.1").container
    assert image is not None
    assert f"driver {image.driver_minimum} or newer" in found.mend
    assert "engine.release: 1.0.0" in found.mend


def test_forward_compatibility_is_for_data_centre_gpus(look) -> None:  # type: ignore[no-untyped-def]
    made = deployment(release="1.1.0")
    assert finding(look(with_gpus(H100, driver="535.9.9"), made), "driver").status == "warn"
    assert finding(look(with_gpus(RTX, driver="535.9.9"), made), "driver").status == "fail"
    assert finding(look(with_gpus(H100, driver="550.9.9"), made), "driver").status == "fail"


def test_gpu_numbers_that_are_not_there(look) -> None:  # type: ignore[no-untyped-def]
    found = finding(look(with_gpus(H100), deployment(gpus=[3])), "gpu numbers")
    assert found.status == "fail"
    assert "names 3, this machine has 0" in found.detail


def test_format_that_the_gpu_does_not_compute(look) -> None:  # type: ignore[no-untyped-def]
    made = deployment(quantization={"weights": "fp8"})
    found = finding(look(with_gpus(A100), made), "compute capability")
    assert found.status == "fail"
    assert "8.0" in found.detail
    assert "int4_awq" in found.mend
    assert finding(look(with_gpus(L4), made), "compute capability").status == "ok"


def test_gpus_of_one_engine_are_equal(look) -> None:  # type: ignore[no-untyped-def]
    made = deployment(gpus=[0, 1], parallelism={"tensor": 2})
    found = finding(look(with_gpus(H100, L4), made), "compute capability")
    assert found.status == "fail"
    assert "differ" in found.detail


def test_memory_that_others_hold(look) -> None:  # type: ignore[no-untyped-def]
    found = finding(look(with_gpus(H100, used=40_000), deployment()), "gpu memory")
    assert found.status == "warn"
    assert "nvidia-smi" in found.mend


def test_weights_that_cannot_fit(look) -> None:  # type: ignore[no-untyped-def]
    big = {"source": "hf://meta-llama/Llama-3.1-70B-Instruct@main"}
    found = finding(look(with_gpus(H100), deployment(model=big)), "gpu memory")
    assert found.status == "fail"
    made = deployment(model=big, quantization={"weights": "int4_awq"})
    assert finding(look(with_gpus(H100), made), "gpu memory").status == "ok"


def test_split_gpu_cannot_be_named_by_number(look) -> None:  # type: ignore[no-untyped-def]
    found = finding(look(with_gpus(A100, mig="Enabled"), deployment()), "mig")
    assert found.status == "fail"
    assert "-mig 0" in found.mend


def test_memory_errors(look) -> None:  # type: ignore[no-untyped-def]
    report = look(with_gpus(H100.replace("Enabled, 0,", "Enabled, 3,")), deployment())
    assert finding(report, "ecc").status == "fail"
    report = look(with_gpus(H100.replace("Enabled, 0,", "Disabled, [N/A],")), deployment())
    assert finding(report, "ecc").status == "warn"
    assert finding(look(with_gpus(RTX), deployment()), "ecc").status == "skip"


def test_slow_links_matter_to_tensor_parallelism(look) -> None:  # type: ignore[no-untyped-def]
    made = deployment(gpus=[1, 2], parallelism={"tensor": 2})
    found = finding(look(with_gpus(*[H100] * 4, links=SOCKETS), made), "gpu links")
    assert found.status == "warn"
    assert "pipeline" in found.mend
    single = look(with_gpus(*[H100] * 4, links=SOCKETS), deployment(gpus=[1]))
    assert not any(each.name == "gpu links" for each in single.findings)


def test_peers_that_cannot_read_each_other(look) -> None:  # type: ignore[no-untyped-def]
    made = deployment(gpus=[0, 2], parallelism={"tensor": 2})
    found = finding(look(with_gpus(*[H100] * 4, cell="CNS"), made), "peer access")
    assert found.status == "warn"
    assert "chipset" in found.detail
    others = deployment(gpus=[1, 3], parallelism={"tensor": 2})
    assert finding(look(with_gpus(*[H100] * 4, cell="CNS"), others), "peer access").status == "ok"


def test_settings_that_slow_nccl(look) -> None:  # type: ignore[no-untyped-def]
    made = deployment(gpus=[0, 1], parallelism={"tensor": 2})
    machine = with_gpus(H100, H100)
    machine.variables["NCCL_P2P_DISABLE"] = "1"
    assert "NCCL_P2P_DISABLE" in finding(look(machine, made), "nccl").detail
    machine.variables = {"NCCL_P2P_DISABLE": "0", "NCCL_NVLS_ENABLE": "1"}
    assert finding(look(machine, made), "nccl").status == "ok"


def test_docker_without_the_nvidia_runtime(look) -> None:  # type: ignore[no-untyped-def]
    machine = with_gpus(H100)
    machine.answers["docker info"] = docker_info(Runtimes={"runc": {}})
    found = finding(look(machine, deployment()), "container gpus")
    assert found.status == "fail"
    assert "nvidia-ctk runtime configure" in found.mend


def test_podman_needs_a_cdi_file(look) -> None:  # type: ignore[no-untyped-def]
    machine = with_gpus(H100)
    machine.programs = {"nvidia-smi", "podman"}
    machine.answers["podman info"] = Answer(0, '{"version": {"Version": "5.2.0"}}')
    assert "cdi generate" in finding(look(machine, deployment()), "container gpus").mend
    machine.files["/etc/cdi/nvidia.yaml"] = ""
    assert finding(look(machine, deployment()), "container gpus").status == "ok"


def test_docker_that_the_user_may_not_use(look) -> None:  # type: ignore[no-untyped-def]
    machine = with_gpus(H100)
    machine.answers["docker info"] = Answer(1, "", "permission denied while trying to connect")
    found = finding(look(machine, deployment()), "container engine")
    assert found.status == "fail"
    assert "usermod" in found.mend


def test_image_that_has_to_be_pulled_needs_space(look) -> None:  # type: ignore[no-untyped-def]
    machine = with_gpus(H100)
    machine.answers["docker image inspect"] = Answer(1, "", "No such image")
    found = finding(look(machine, deployment()), "image")
    assert found.status == "warn"
    assert found.mend.startswith("docker pull nvcr.io/nvidia/tritonserver:")
    machine.free = 10 * 2**30
    assert finding(look(machine, deployment()), "image").status == "fail"


def test_disk_for_weights_and_engine(look, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    machine = with_gpus(H100)
    machine.free = 30 * 10**9
    made = deployment(quantization={"weights": "fp8"})
    assert finding(look(machine, made), "disk").status == "fail"
    record_use(tmp_path / "w", "chat", ["k"])
    assert finding(look(machine, made), "disk").status == "ok"


def test_workspace_that_cannot_be_written(look, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    assert finding(look(bare()), "disk").status == "ok"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    found = finding(look(bare()), "disk")
    assert found.status == "fail"
    assert "TOOLKIT_WORKSPACE" in found.mend


def test_memory_is_what_the_control_group_allows(look) -> None:  # type: ignore[no-untyped-def]
    machine = with_gpus(H100)
    made = deployment(kv_cache={"host_offload": "64GiB"})
    assert finding(look(machine, made), "memory").status == "ok"
    machine.files["/sys/fs/cgroup/memory.max"] = f"{32 * 2**30}\n"
    assert finding(look(machine, made), "memory").status == "fail"


def test_few_cores_of_a_control_group(look) -> None:  # type: ignore[no-untyped-def]
    machine = bare()
    machine.files["/sys/fs/cgroup/cpu.max"] = "150000 100000\n"
    assert finding(look(machine), "control group").status == "warn"


def test_limits_and_shared_memory_of_a_bare_server(look) -> None:  # type: ignore[no-untyped-def]
    machine = with_gpus(H100, H100)
    machine.limits = {resource.RLIMIT_MEMLOCK: 65536, resource.RLIMIT_NOFILE: 1024}
    machine.shm = 512 * 2**20
    made = deployment(launcher="binary", gpus=[0, 1], parallelism={"tensor": 2})
    report = look(machine, made)
    for name in ("locked memory", "open files", "shared memory"):
        assert finding(report, name).status == "warn"
    machine.shm = 2**20
    assert finding(look(machine, made), "shared memory").status == "fail"
    names = {each.name for each in look(machine, deployment()).findings}
    assert "shared memory" not in names  # a container has its own


def test_taken_port_is_named(look) -> None:  # type: ignore[no-untyped-def]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        made = deployment(ports={"http": port, "grpc": 0, "metrics": 0})
        found = finding(look(with_gpus(H100), made), "ports")
    assert found.status == "fail"
    assert str(port) in found.detail


def test_token_is_found_and_never_shown(look) -> None:  # type: ignore[no-untyped-def]
    machine = with_gpus(H100)
    assert finding(look(machine, deployment()), "hub token").status == "warn"
    machine.variables["HF_TOKEN"] = "hf_very_secret"
    report = look(machine, deployment())
    assert finding(report, "hub token").status == "ok"
    assert "hf_very_secret" not in str(report.as_json())
    local = deployment(model={"source": "./model"})
    assert not any(each.name == "hub token" for each in look(machine, local).findings)


def test_cpu_deployment_is_asked_nothing_of_gpus(look) -> None:  # type: ignore[no-untyped-def]
    made = deployment("openvino", launcher="binary", model={"source": "sample:smollm2-135m"})
    names = {each.name for each in look(bare(), made).findings}
    assert not {"gpu", "driver", "container engine", "mig", "hub token"} & names
    assert {"tritonserver", "python packages", "disk", "ports"} <= names


@pytest.mark.parametrize(
    ("source", "size"),
    [
        ("hf://meta-llama/Llama-3.1-8B-Instruct@70b", 16 * 10**9),
        ("hf://mistralai/Mixtral-8x7B-v0.1", 112 * 10**9),
        ("hf://Qwen/Qwen3-0.6B", 12 * 10**8),
        ("hf://HuggingFaceTB/SmolLM2-135M-Instruct", 27 * 10**7),
        ("hf://openai-community/gpt2", None),
    ],
)
def test_size_from_the_name(source: str, size: int | None) -> None:
    assert source_bytes(source) == size


def test_size_of_local_files(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"0" * 100)
    (tmp_path / "b.safetensors").write_bytes(b"0" * 50)
    assert source_bytes(str(tmp_path)) == 150


def test_needs_follow_the_file() -> None:
    need = need_of(deployment("auto", gpus=[0, 1], parallelism={"tensor": 2}))
    assert (need.runtime, need.contained, need.gpus) == ("pytorch", True, (0, 1))
    cpu = need_of(deployment("auto", launcher="auto"))
    assert (cpu.runtime, cpu.contained, cpu.gpus) == ("openvino", False, ())


def test_checks_have_names_of_their_own() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    assert all(check.proves for check in CHECKS)


@pytest.mark.parametrize(
    ("quantization", "fits"),
    [
        ({"weights": "none", "kv_cache": "fp8"}, False),
        ({"weights": "fp8", "kv_cache": "fp8"}, True),
        ({"weights": "none"}, False),
    ],
)
def test_a_quantized_cache_makes_the_weights_no_smaller(  # type: ignore[no-untyped-def]
    look, quantization: dict[str, str], fits: bool
) -> None:
    """70 billion parameters: 140 GB in 16 bits, which one H100 of 80 GB does not hold, nor two
    of them with anything beside; 70 GB in 8."""
    made = deployment(model={"source": "hf://meta/Big-70B@main"}, quantization=quantization)
    found = finding(look(with_gpus(H100), made), "gpu memory")
    assert (found.status != "fail") is fits, found.detail
