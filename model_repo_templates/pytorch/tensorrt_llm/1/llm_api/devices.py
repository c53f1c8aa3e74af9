"""Give each instance its own GPUs, before anything touches CUDA.

The LLM API starts its workers by MPI; they inherit what this process may see. What a surrounding
mpirun left in the environment would make them join its job instead of one of their own (upstream's
model.py of the LLM API clears the same variables).
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence

_JOB_VARIABLES = ("OMPI_COMM_WORLD_", "OMPI_UNIVERSE_", "OMPI_FIRST_", "OMPI_APP_CTX_", "PMIX_",
                  "PMI_", "OMPI_MCA_orte_", "ORTE_")  # fmt: skip
_SETTINGS = ("PMIX_MCA_", "OMPI_MCA_odls", "OMPI_MCA_btl")


def restrict(
    environment: MutableMapping[str, str], gpus: Sequence[Sequence[int]], instance: str
) -> list[str]:
    """Leave only the instance's GPUs visible; returns them.

    Args:
        environment: Changed in place.
        gpus: A list for each instance, as numbers among the visible GPUs.
        instance: Triton's name of the instance; it ends in its number.

    Raises:
        ValueError: there is no list for the instance, or a GPU of it is not visible.
    """
    number = int(instance.rpartition("_")[2])
    if number >= len(gpus):
        raise ValueError(f"instance {number} has no GPUs: there are {len(gpus)} lists")
    visible = [each.strip() for each in environment.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    chosen = []
    for gpu in gpus[number]:
        if visible != [""] and gpu >= len(visible):
            raise ValueError(f"GPU {gpu} is not among the {len(visible)} visible ones")
        chosen.append(str(gpu) if visible == [""] else visible[gpu])
    environment["CUDA_VISIBLE_DEVICES"] = ",".join(chosen)
    environment["TRTLLM_VISIBLE_DEVICES"] = ",".join(chosen)
    for name in list(environment):
        if name.startswith(_JOB_VARIABLES) and not name.startswith(_SETTINGS):
            del environment[name]
    return chosen
