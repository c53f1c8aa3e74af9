"""Check a rendered repository without a server."""

from __future__ import annotations

from pathlib import Path

from toolkit.errors import SpecError
from toolkit.repository.configs import read_configs
from toolkit.repository.contents import check_contents
from toolkit.repository.findings import Finding
from toolkit.repository.names import check_names
from toolkit.repository.wiring import check_wiring


def check_static(repository: Path) -> list[Finding]:
    """Everything that can be known before the server starts; empty if all is well.

    Configurations parse into Triton's own message, ensembles are wired with matching types,
    names are those of the contracts, limits fit the compiled engine, files are there, code
    imports nothing that a server need not have, and no secret was rendered.

    Raises:
        SpecError: there is no such folder.
    """
    if not repository.is_dir():
        raise SpecError("there is no model repository", where=str(repository))
    from toolkit.repository.nvidia.checking import check_nvidia, served_by

    configs, findings = read_configs(repository)
    findings += check_wiring(configs)
    served = served_by(repository)
    if served is not None and served.runtime != "openvino":
        return findings + check_nvidia(repository, configs, served)
    findings += check_names(configs)
    findings += check_contents(repository, configs)
    return findings
