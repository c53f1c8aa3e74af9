"""What is missing is found before the server starts, and the error says how to mend it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from toolkit.errors import EnvironmentError_
from toolkit.serving import preflight
from toolkit.serving.install import ServerBinary, python_version


def test_old_and_foreign_c_libraries() -> None:
    preflight.check_glibc("2.35")
    preflight.check_glibc("2.36-9+deb12u14")
    with pytest.raises(EnvironmentError_, match=r"2\.31"):
        preflight.check_glibc("2.31")
    with pytest.raises(EnvironmentError_, match="another C library"):
        preflight.check_glibc("")


def test_numpy_2_is_refused_with_the_command() -> None:
    preflight.check_numpy("1.26.4")
    with pytest.raises(EnvironmentError_, match=r"2\.4\.6") as caught:
        preflight.check_numpy("2.4.6")
    assert "numpy<2" in (caught.value.hint or "")
    with pytest.raises(EnvironmentError_, match="not installed"):
        preflight.check_numpy(None)


def test_stub_of_another_python(tmp_path: Path) -> None:
    stub = tmp_path / "stub"
    stub.write_bytes(b"\x7fELF ... libpython3.4.so.1.0 ...")
    with pytest.raises(EnvironmentError_, match=r"built for Python 3\.4") as caught:
        preflight.check_stub(stub)
    assert "toolkit server install" in (caught.value.hint or "")
    bundled = b"libpython3-419a3a08.4.so.1.0"  # as wheel tools rename a library they bundle
    stub.write_bytes(bundled)
    with pytest.raises(EnvironmentError_, match=r"built for Python 3\.4"):
        preflight.check_stub(stub)


def test_missing_libpython_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = f"libpython{python_version()}.so.1.0"
    stub = tmp_path / "stub"
    stub.write_bytes(library.encode())
    monkeypatch.setattr(preflight, "missing_libraries", lambda *_: [library])
    with pytest.raises(EnvironmentError_, match=library) as caught:
        preflight.check_stub(stub)
    assert f"apt-get install libpython{python_version()}" in (caught.value.hint or "")


def test_other_missing_libraries_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "missing_libraries", lambda *_: ["liba.so", "libb.so"])
    with pytest.raises(EnvironmentError_, match=r"liba\.so, libb\.so"):
        preflight.check_libraries(tmp_path / "server")


def test_missing_libraries_come_from_the_loader(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None or shutil.which("ldd") is None:
        pytest.skip("needs a C compiler and ldd")
    import subprocess

    (tmp_path / "x.c").write_text("int needed(void) { return 0; }")
    (tmp_path / "main.c").write_text("int needed(void); int main(void) { return needed(); }")
    library, program = tmp_path / "libneeded.so", tmp_path / "program"
    build = [compiler, "-shared", "-fPIC", "-o", str(library), str(tmp_path / "x.c")]
    subprocess.run(build, check=True)
    subprocess.run(
        [compiler, "-o", str(program), str(tmp_path / "main.c"), f"-L{tmp_path}", "-lneeded"],
        check=True,
    )
    assert preflight.missing_libraries(program, "") == ["libneeded.so"]
    assert preflight.missing_libraries(program, str(tmp_path)) == []


def test_small_or_absent_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preflight.check_shared_memory(tmp_path)
    with pytest.raises(EnvironmentError_, match="no shared memory"):
        preflight.check_shared_memory(tmp_path / "none")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2**20))
    with pytest.raises(EnvironmentError_, match="1 MiB free") as caught:
        preflight.check_shared_memory(tmp_path)
    assert "--shm-size" in (caught.value.hint or "")


def test_cpu_runtime_needs_openvino_and_a_python_backend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = ServerBinary(Path("/bin/true"), tmp_path, "path")
    with pytest.raises(EnvironmentError_, match="no python backend"):
        preflight.check(binary, "openvino")
    (tmp_path / "python").mkdir()
    shutil.copy("/bin/true", binary.stub)
    monkeypatch.setattr(preflight, "_installed_version", lambda _: "1.26.4")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(EnvironmentError_, match="needs the package openvino"):
        preflight.check(binary, "openvino")
    preflight.check(binary, "tensorrt")
