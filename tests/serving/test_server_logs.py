"""The log rotates at line ends, and its readers lose nothing over a rotation."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from toolkit.serving.logs import RotatingLog, follow, tail


def test_rotation_keeps_the_newest_files_whole(tmp_path: Path) -> None:
    log = RotatingLog(tmp_path / "server.log", max_bytes=100, keep=2)
    for number in range(60):
        log.write(f"line {number:04d}\n".encode())
    log.close()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["server.log", "server.log.1", "server.log.2"]
    texts = [(tmp_path / name).read_text() for name in reversed(names)]
    numbers = [int(line.split()[1]) for text in texts for line in text.splitlines()]
    assert numbers == list(range(numbers[0], 60))
    assert all(text == "" or text.endswith("\n") for text in texts)


def test_no_rotation_inside_a_line(tmp_path: Path) -> None:
    log = RotatingLog(tmp_path / "server.log", max_bytes=10)
    log.write(b"a long beginning ")
    log.write(b"and its end\n")
    log.close()
    assert (tmp_path / "server.log.1").read_text() == "a long beginning and its end\n"


def test_writing_goes_on_where_an_earlier_supervisor_ended(tmp_path: Path) -> None:
    for text in (b"one\n", b"two\n"):
        log = RotatingLog(tmp_path / "server.log")
        log.write(text)
        log.close()
    assert tail(tmp_path / "server.log", 5) == ["one", "two"]
    log.write(b"dropped after close")


def test_tail(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    assert tail(path, 3) == []
    path.write_bytes(b"1\n2\nbroken \xff\n4\n")
    assert tail(path, 2) == ["broken \N{REPLACEMENT CHARACTER}", "4"]
    assert tail(path, 0) == []


def test_follow_survives_rotation_and_ends(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    over = threading.Event()
    seen: list[str] = []
    reader = threading.Thread(
        target=lambda: seen.extend(follow(path, ended=over.is_set, from_end=False, interval=0.005))
    )
    reader.start()
    log = RotatingLog(path, max_bytes=200, keep=50)
    for number in range(100):
        log.write(f"{number}\n".encode())
        time.sleep(0.001)
    log.write(b"no newline")
    log.close()
    over.set()
    reader.join(10)
    assert seen[-1] == "no newline"
    assert [int(each) for each in seen[:-1]] == sorted(int(each) for each in seen[:-1])
    assert len(seen) > 60


def test_follow_ends_without_a_file(tmp_path: Path) -> None:
    assert list(follow(tmp_path / "none", ended=lambda: True)) == []
