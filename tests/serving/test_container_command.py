"""Command lines of containers and ranks: exact devices, few rights, upstream's mpirun."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from toolkit import releases
from toolkit.errors import SpecError, UnsupportedError
from toolkit.serving import container, container_engines, container_run, launch, ranks
from toolkit.serving.container_engines import Client
from toolkit.serving.container_run import Engine
from toolkit.serving.ports import Endpoints
from toolkit.spec.models import Deployment, Runtime

IMAGE = "example/triton@sha256:" + "c" * 64


def deployment(runtime: Runtime = "tensorrt", **fields: object) -> Deployment:
    serving = {"launcher": "container", "image": IMAGE, "drain_timeout": 20}
    engine: dict[str, object] = {"runtime": runtime}
    for key, value in fields.items():
        (engine if key in ("parallelism", "speculation", "release") else serving)[key] = value
    return Deployment.model_validate(
        {"name": "chat", "model": {"source": "./m"}, "engine": engine, "serving": serving}
    )


def command(
    made: Deployment, runtime: Runtime = "tensorrt", engine: Engine = "docker", **changes: object
) -> list[str]:
    client = Client(engine, Path(f"/usr/bin/{engine}"))
    box = container.compose(made, runtime, client, container.image_of(made, runtime))
    box = box.model_copy(update=changes)
    plan = container.plan(made, runtime, Path("/ws/repository/k/repository"), "d", box, {})
    ends = Endpoints(plan.host, 8000, 8001, 8002)
    return launch.command_line(plan, Path("/m"), ends, admin_key="k", shm_prefix="toolkit_chat_ab_")


def values(words: list[str], flag: str) -> list[str]:
    return [words[at + 1] for at, word in enumerate(words) if word == flag]


def inner(words: list[str]) -> list[str]:
    return words[words.index(IMAGE) + 1 :]


def split_ranks(words: list[str]) -> list[list[str]]:
    """The commands between mpirun's colons."""
    found: list[list[str]] = [[]]
    for word in words:
        found[-1].append(word) if word != ":" else found.append([])
    return found


def test_docker_gets_exact_devices_in_quotes_of_their_own() -> None:
    made = deployment(gpus=[1, 3], parallelism={"tensor": 2})
    assert values(command(made), "--gpus") == ['"device=1,3"']


def test_podman_gets_cdi_names() -> None:
    words = command(deployment(gpus=[2]), engine="podman", rootless=True)
    assert values(words, "--device") == ["nvidia.com/gpu=2"]
    assert "--gpus" not in words
    assert values(words, "--userns") == ["keep-id"]
    assert "--network" not in words


def test_limits_of_a_rootless_engine_are_not_raised() -> None:
    assert "memlock=-1" not in values(command(deployment(), memlock=False), "--ulimit")
    assert values(command(deployment()), "--ulimit") == ["memlock=-1", "stack=67108864"]


def test_shared_memory_grows_with_the_gpus() -> None:
    made = deployment(gpus=[0, 1, 2, 3], parallelism={"tensor": 4})
    assert values(command(made), "--shm-size") == [str(8 * 2**30)]


def test_ports_are_published_on_the_host_alone() -> None:
    assert values(command(deployment()), "--publish") == [
        "127.0.0.1:8000:8000",
        "127.0.0.1:8001:8001",
        "127.0.0.1:8002:8002",
    ]
    assert values(command(deployment(host="::1")), "--publish")[0] == "[::1]:8000:8000"
    assert "--http-address=0.0.0.0" in command(deployment())


def test_nothing_privileged_and_nothing_of_the_host_shared() -> None:
    words = command(deployment())
    assert values(words, "--cap-drop") == ["ALL"]
    assert values(words, "--security-opt") == ["no-new-privileges"]
    assert not {"--privileged", "--cap-add", "--pid", "--ipc"} & set(words)
    assert values(words, "--network") == ["bridge"]


def test_selinux_labels_are_off_only_where_they_are_on() -> None:
    assert "label=disable" in values(command(deployment(), relabel=True), "--security-opt")


def test_every_mount_but_the_cache_is_read_only() -> None:
    words = command(deployment(), mounts=(Path("/ws/engine/e"), Path("/ws/engine/e/below")))
    mounts = values(words, "--mount")
    assert [word for word in mounts if not word.endswith(",readonly")] == [mounts[0]]
    assert ",target=/cache" in mounts[0]
    assert "type=bind,source=/ws/engine/e,target=/ws/engine/e,readonly" in mounts
    assert not any("below" in word for word in mounts)


@pytest.mark.parametrize("path", ["/a,b", '/a"b', "/a\nb"])
def test_path_that_the_flag_cannot_hold_is_refused(path: str) -> None:
    with pytest.raises(SpecError, match="cannot be mounted"):
        container_run.mount(Path(path))


def test_image_of_the_release_unless_one_is_named() -> None:
    assert container.image_of(deployment(), "tensorrt") == IMAGE
    for version in releases.known_versions():
        known = releases.release(version)
        made = deployment(image=None, release=version)
        if known.container is not None:
            assert container.image_of(made, "pytorch") == known.container.name
        else:
            with pytest.raises(UnsupportedError, match="no Triton image") as caught:
                container.image_of(made, "pytorch")
            assert caught.value.where == "engine.release"
            assert f"serving.image: {known.built_image}" in str(caught.value.hint)


@pytest.mark.parametrize(
    "image", ["triton", "triton:latest", "UPPER:1", "a b:1", "x@sha256:12", "", "-v:1"]
)
def test_image_has_to_be_pinned(image: str) -> None:
    with pytest.raises(ValueError, match="image"):
        deployment(image=image)


def test_one_gpu_needs_no_mpirun() -> None:
    for runtime in ("tensorrt", "pytorch"):
        made = deployment(runtime)  # type: ignore[arg-type]
        words = inner(command(made, runtime))  # type: ignore[arg-type]
        assert words[0] == "/opt/tritonserver/bin/tritonserver"


def test_leader_mode_starts_one_server_a_gpu() -> None:
    made = deployment(gpus=[0, 1], parallelism={"tensor": 2})
    words = inner(command(made))
    assert words[:2] == ["mpirun", "--allow-run-as-root"]
    first, second, rest = split_ranks(words[2:])
    assert rest == []
    assert first[:3] == second[:3] == ["-n", "1", "/opt/tritonserver/bin/tritonserver"]
    assert "--model-control-mode=none" in first
    assert "--model-control-mode=none" not in second
    assert {"--model-control-mode=explicit", "--load-model=tensorrt_llm"} <= set(second)
    shm = "--backend-config=python,shm-region-prefix-name=toolkit_chat_ab_"
    assert f"{shm}0_" in first
    assert f"{shm}1_" in second
    # Beside what loads models and names memory, the ranks are told the same.
    differing = ("--model-control-mode", "--load-model", "--backend-config")
    assert [w for w in first if not w.startswith(differing)] == [
        w for w in second if not w.startswith(differing)
    ]


def test_pipeline_parallel_ranks_count_too() -> None:
    parallel = {"tensor": 2, "pipeline": 2}
    made = deployment(gpus=[0, 1, 2, 3], parallelism=parallel)
    assert ranks.ranks_of(made, "tensorrt").world_size == 4


def test_draft_model_on_one_gpu_is_one_server() -> None:
    draft = {"method": "draft_model", "draft": {"source": "./d"}, "max_draft_len": 4}
    found = ranks.ranks_of(deployment(speculation=draft), "tensorrt")
    assert (found.mode, found.models) == ("alone", ("tensorrt_llm", "tensorrt_llm_draft"))


@pytest.mark.parametrize(
    "fields",
    [
        {"replicas": 2},
        {
            "parallelism": {"tensor": 2},
            "speculation": {
                "method": "draft_model",
                "draft": {"source": "./d"},
                "max_draft_len": 4,
            },
        },
    ],
)
def test_several_engines_over_gpus_need_the_orchestrator(fields: dict[str, object]) -> None:
    made = deployment(gpus=[0, 1], **fields)
    words = inner(command(made))
    (only, rest) = split_ranks(words[2:])
    assert rest == []
    assert {
        "--pinned-memory-pool-byte-size=0",
        "--enable-peer-access=false",
        "--cuda-memory-pool-byte-size=0:0",
        "--cuda-memory-pool-byte-size=1:0",
    } <= set(only)
    told = ranks.variables(ranks.ranks_of(made, "tensorrt"), contained=True)
    assert told["TRTLLM_ORCHESTRATOR"] == told["TRTLLM_ORCHESTRATOR_SPAWN_PROCESSES"] == "1"


def test_llm_api_starts_its_own_workers_on_one_node() -> None:
    for fields in ({"parallelism": {"tensor": 2}}, {"replicas": 2}):
        made = deployment("pytorch", gpus=[0, 1], **fields)
        assert ranks.ranks_of(made, "pytorch").mode == "alone"


def test_llm_api_under_a_scheduler_has_every_rank_behind_its_launcher() -> None:
    found = ranks.Ranks(mode="llmapi", world_size=2)
    words = ranks.spread(found, ["/opt/t", "--backend-config=python,shm-region-prefix-name=p_"])
    assert words[:3] == ["mpirun", "--allow-run-as-root", "--oversubscribe"]
    first, second, _ = split_ranks(words[3:])
    assert first[:4] == second[:4] == ["-n", "1", "trtllm-llmapi-launch", "/opt/t"]


def test_time_to_drain_covers_both_of_mpiruns_waits() -> None:
    made = deployment(gpus=[0, 1], parallelism={"tensor": 2})
    told = ranks.variables(ranks.ranks_of(made, "tensorrt"), contained=True)
    assert told["OMPI_MCA_odls_base_sigkill_timeout"] == "10"
    assert told["OMPI_MCA_btl_vader_single_copy_mechanism"] == "none"
    assert ranks.variables(ranks.Ranks(), contained=True) == {}


def test_variables_travel_by_name() -> None:
    made = deployment(gpus=[0, 1], parallelism={"tensor": 2})
    by_name = [word for word in values(command(made), "--env") if "=" not in word]
    assert {"TOOLKIT_KV_CACHE_SCALE", "OMPI_MCA_odls_base_sigkill_timeout"} <= set(by_name)


def test_what_links_and_files_name_is_found(tmp_path: Path) -> None:
    repository = tmp_path / "repository/k/repository"
    engine, weights = tmp_path / "engine/e", tmp_path / "elsewhere/w.bin"
    for directory in (repository / "m/1", engine, weights.parent):
        directory.mkdir(parents=True)
    weights.touch()
    (repository / "m/1/w.bin").symlink_to(weights)
    text = f'string_value: "{engine}"\nother: "{repository}/m" "/usr/bin" "/nowhere"'
    (repository / "m/config.pbtxt").write_text(text)
    store = container.store_of(repository)
    assert store == tmp_path
    assert set(container_run.referenced(repository, store)) == {engine, weights}


def test_engine_setting_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_CONTAINER_ENGINE", "lxc")
    with pytest.raises(SpecError, match="lxc"):
        container_engines.find()


@pytest.mark.skipif(not shutil.which("docker"), reason="no docker client on this machine")
def test_docker_itself_knows_every_flag() -> None:
    told = subprocess.run(["docker", "run", "--help"], capture_output=True, text=True)
    made = deployment(gpus=[0, 1], parallelism={"tensor": 2})
    words = command(made, relabel=True)
    outer = words[2 : words.index(IMAGE)]
    known = {word.strip(",") for word in told.stdout.split() if word.startswith("--")}
    assert {word for word in outer if word.startswith("--")} <= known


def test_a_host_name_is_published_as_the_address_that_the_flag_takes() -> None:
    assert values(command(deployment(host="localhost")), "--publish")[0] == "127.0.0.1:8000:8000"
