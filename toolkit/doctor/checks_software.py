"""Checks of the server's binary, Python packages, and access to the model hub."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from toolkit.doctor.check import Check, Context, Result, fail, ok, skip, warn
from toolkit.doctor.need import Need
from toolkit.errors import ToolkitError
from toolkit.serving import install, preflight

_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


@dataclass(frozen=True)
class Package:
    """A Python package that something depends on.

    Attributes:
        minimum: Least version, compared number by number.
        below: First version that does not work.
        extra: The extra of this package that brings it; empty for a plain dependency.
        needed: Whether a deployment depends on it here.
    """

    name: str
    minimum: str
    extra: str
    needed: Callable[[Need], bool]
    below: str | None = None

    @property
    def requirement(self) -> str:
        """As pip takes it."""
        if self.minimum == self.below:
            return f"{self.name}=={self.minimum}"
        return f"{self.name}>={self.minimum}" + (f",<{self.below}" if self.below else "")

    def fits(self, version: str) -> bool:
        """Whether ``version`` works."""
        found = _numbers(version)
        if self.minimum == self.below:
            return found == _numbers(self.minimum)
        return found >= _numbers(self.minimum) and not (
            self.below is not None and found >= _numbers(self.below)
        )


def _numbers(version: str) -> tuple[int, ...]:
    release = re.split(r"[^0-9.]", version, maxsplit=1)[0]
    return tuple(int(part) for part in release.split(".") if part)


def _cpu(need: Need) -> bool:
    return need.runtime == "openvino" and not need.contained


def _quantizes(need: Need) -> bool:
    return need.quantizes and not need.contained


PACKAGES = (
    # Triton 2.51's python stub dies at its first string tensor under numpy 2.
    Package("numpy", "1.26", "", _cpu, below="2"),
    Package("openvino", "2026.4.1", "cpu", _cpu, below="2026.4.1"),
    Package("torch", "2.6", "quantize", _quantizes),
    Package("nvidia-modelopt", "0.47.0", "quantize", _quantizes, below="0.47.0"),
    Package("transformers", "4.57", "quantize", _quantizes, below="5.15"),
)
"""Versions as pyproject.toml declares them."""


def installed(name: str) -> str | None:
    """The version of a package of this environment."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _packages(context: Context) -> Result:
    need = context.need
    wanted = [each for each in PACKAGES if need is None or each.needed(need)]
    if not wanted:
        return skip("the container brings its own")
    wrong: list[str] = []
    extras: set[str] = set()
    told: list[str] = []
    for package in wanted:
        version = installed(package.name)
        told.append(f"{package.name} {version or 'missing'}")
        if version is None or not package.fits(version):
            wrong.append(f"{package.name} {version or 'is missing'} ({package.requirement})")
            extras |= {package.extra} if package.extra else set()
    if not wrong:
        return ok(", ".join(told))
    names = f"[{','.join(sorted(extras))}]" if extras else ""
    mend = f"pip install 'triton-trtllm-toolkit{names}'"
    return fail("; ".join(wrong), mend) if need else warn("; ".join(wrong), mend)


def _binary(need: Need) -> bool:
    return not need.contained


def _server(context: Context) -> Result:
    need = context.need
    try:
        binary = install.find_server()
        if binary is None:
            preflight.check_glibc(platform.libc_ver()[1])
            return ok(f"`toolkit deploy` installs that of {install.PACKAGE}")
        preflight.check(binary, need.runtime if need else "openvino")
    except ToolkitError as error:
        result = fail(error.message, error.hint or "")
        return result if need else warn(result.detail, result.mend)
    return ok(f"{binary.executable} ({binary.origin})")


def _release(context: Context) -> Result:
    need = context.need
    if need is None or need.release is None:
        return skip("no deployment file for an NVIDIA runtime")
    version = installed("tensorrt_llm")
    if version is None:
        return fail(
            "tensorrt_llm is not installed in this environment",
            "run inside the release's container, or set serving.launcher: container",
        )
    wanted = need.release.version
    if version == wanted or version.startswith(f"{wanted}."):
        return ok(f"tensorrt_llm {version}")
    return fail(
        f"tensorrt_llm {version} is installed, the deployment is for {wanted}",
        f"set engine.release: {version}, or use the container with {wanted}",
    )


def _bare_gpu(need: Need) -> bool:
    return need.on_gpu and not need.contained


def _token(context: Context) -> Result:
    environ = context.machine.environ
    names = [name for name in _TOKENS if environ.get(name)]
    if names:
        return ok(f"{names[0]} is set")
    home = Path(
        environ.get("HF_HOME") or Path(environ.get("HOME", "~")).expanduser() / ".cache/huggingface"
    )
    path = Path(environ.get("HF_TOKEN_PATH") or home / "token")
    if context.machine.exists(str(path)):
        return ok(f"a token is stored in {path}")
    return warn(
        "no token: gated models (Llama, Gemma, Mistral) cannot be fetched",
        "hf auth login, or export HF_TOKEN; nothing to do for open models or local weights",
    )


def _hub(need: Need) -> bool:
    return need.hub


def _home(context: Context) -> Result:
    from toolkit.workspace import user_cache_path

    path = user_cache_path()
    at = path
    while not at.exists() and at != at.parent:
        at = at.parent
    if os.access(at, os.W_OK):
        return ok(str(path))
    return fail(f"{path} cannot be written", "set TOOLKIT_CACHE to a directory of yours")


SOFTWARE_CHECKS = (
    Check("tritonserver", "the server and its libraries are here", _server, _binary),
    Check("tensorrt-llm", "the environment holds the release", _release, _bare_gpu),
    Check("python packages", "versions fit together", _packages),
    Check("user cache", "what is downloaded can be kept", _home),
    Check("hub token", "gated models can be fetched", _token, _hub),
)
