"""API keys: what is in the file, who is let in, what happens when the file changes."""

from __future__ import annotations

import os
import stat
import threading
import time
from pathlib import Path

import pytest

from toolkit.errors import SpecError
from toolkit.gateway.guard import keys
from toolkit.gateway.guard.admission import KeyedAdmission
from toolkit.gateway.guard.keys import Key, KeyLimits, KeyRing, editing, make, read, write
from toolkit.gateway.work import GatewayError


def bearer(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


def test_the_file_holds_no_key_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    new = make("team-a")
    write(path, {"team-a": new.entry})
    secret = new.text.rsplit("_", 1)[1]
    assert secret not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read(path) == {"team-a": new.entry}


def test_who_bears_a_key_is_let_in_and_nobody_else(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    one, other = make("team-a", request_class="batch"), make("team-b")
    write(path, {each.entry.id: each.entry for each in (one, other)})
    admission = KeyedAdmission(KeyRing(path))
    caller = admission.authenticate(bearer(one.text))
    assert (caller.id, caller.request_class) == ("team-a", "batch")
    forged = "tk_team-a_" + other.text.rsplit("_", 1)[1]
    wrong = ({}, bearer(""), bearer("x"), bearer(forged), bearer(one.text + "x"))
    for headers in (*wrong, {"authorization": one.text}, {"authorization": f"Basic {one.text}"}):
        with pytest.raises(GatewayError) as caught:
            admission.authenticate(headers)
        assert caught.value.status == 401


def test_keys_come_and_go_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    one, other = make("a"), make("b")
    write(path, {"a": one.entry})
    ring = KeyRing(path)
    assert ring.find(other.text) is None
    write(path, {"b": other.entry})
    assert ring.find(other.text) == other.entry
    assert ring.find(one.text) is None
    path.write_text("keys: [{")  # half of an edit: nobody is locked out
    os.utime(path, ns=(1, 1))
    assert ring.find(other.text) == other.entry


def test_a_file_that_everybody_reads_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    write(path, {})
    path.chmod(0o644)
    with pytest.raises(SpecError, match="readable by everybody"):
        read(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("keys: [{id: a, sha256: zz}]", "keys.0.sha256"),
        ("keys: [{id: a}]", "keys.0.sha256"),
        ("keys: {a: b}", "keys"),
        ("keys: [", "cannot be read"),
        ("token: a", "token"),
        ("keys: [{id: A B, sha256: " + "0" * 64 + "}]", "keys.0.id"),
        (
            "keys: [{id: a, sha256: &h " + "ab" * 32 + "}, {id: a, sha256: *h}]",
            "two keys have the same id",
        ),
    ],
)
def test_a_wrong_file_is_refused_by_its_field(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "keys.yaml"
    write(path, {})
    path.write_text(text)
    with pytest.raises(SpecError, match=message):
        read(path)


@pytest.mark.parametrize("name", ["", "A", "a b", "a_b", "x" * 41, "ä"])
def test_an_id_has_few_letters(name: str) -> None:
    with pytest.raises(SpecError):
        make(name)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def admission_of(tmp_path: Path, **limits: int) -> tuple[KeyedAdmission, str, Clock, Path]:
    path, clock = tmp_path / "keys.yaml", Clock()
    new = make("a", limits=KeyLimits(**limits), models=("chat",))
    write(path, {"a": new.entry})
    return KeyedAdmission(KeyRing(path), clock), new.text, clock, path


def refused(admission: KeyedAdmission, text: str, tokens: int, model: str = "chat") -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        admission.admit(admission.authenticate(bearer(text)), model, 0, tokens)
    return caught.value


def test_a_key_may_be_for_some_models_only(tmp_path: Path) -> None:
    admission, text, _, _ = admission_of(tmp_path)
    assert refused(admission, text, 1, model="other").status == 403


def test_requests_a_minute(tmp_path: Path) -> None:
    admission, text, clock, _ = admission_of(tmp_path, requests_per_minute=2)
    caller = admission.authenticate(bearer(text))
    for _ in range(2):
        admission.admit(caller, "chat", 1, 0)
    error = refused(admission, text, 1)
    assert error.status == 429
    assert error.retry_after_s == 30
    clock.now = 30.0
    admission.admit(caller, "chat", 1, 0)


def test_tokens_that_were_not_used_are_given_back(tmp_path: Path) -> None:
    admission, text, clock, _ = admission_of(tmp_path, tokens_per_minute=1000)
    caller = admission.authenticate(bearer(text))
    with admission.admit(caller, "chat", 100, 800) as grant:
        assert refused(admission, text, 200).status == 429
        grant.used(60)
        grant.used(40)
    with admission.admit(caller, "chat", 100, 800) as grant:
        grant.used(900)
    assert refused(admission, text, 60).retry_after_s == 4
    clock.now = 60.0
    # More than a minute's worth is let in once the bucket is full, instead of never.
    admission.admit(caller, "chat", 0, 5000)


def test_requests_and_tokens_at_once(tmp_path: Path) -> None:
    admission, text, _, path = admission_of(tmp_path, concurrent_requests=2, concurrent_tokens=1000)
    caller = admission.authenticate(bearer(text))
    first = admission.admit(caller, "chat", 100, 500)
    assert "concurrent tokens" in refused(admission, text, 500).message
    second = admission.admit(caller, "chat", 0, 400)
    assert "concurrent requests" in refused(admission, text, 1).message
    # New limits in the file apply at once, and what runs still counts.
    entries = read(path)
    write(path, {"a": entries["a"].model_copy(update={"limits": KeyLimits(concurrent_requests=1)})})
    first.__exit__(None, None, None)
    assert "limit of 1 concurrent requests" in refused(admission, text, 1).message
    second.__exit__(None, None, None)
    admission.admit(caller, "chat", 0, 10_000)


def test_a_key_that_goes_while_the_file_is_first_read_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys.yaml"
    one = make("a")
    write(path, {"a": one.entry})

    def slow(file: Path) -> dict[str, Key]:
        found = read(file)
        write(file, {})
        return found

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(keys, "read", slow)
        ring = KeyRing(path)
    assert ring.find(one.text) is None


def test_a_broken_file_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keys.yaml"
    one = make("a")
    write(path, {"a": one.entry})
    ring = KeyRing(path)
    path.unlink()
    assert ring.find(one.text) is not None
    assert ring.find(one.text) is not None
    assert [str(path) in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o620, 0o606])
def test_a_file_that_others_may_change_or_everybody_reads_is_refused(
    tmp_path: Path, mode: int
) -> None:
    path = tmp_path / "keys.yaml"
    write(path, {})
    path.chmod(mode)
    with pytest.raises(SpecError, match=r"by everybody|changed by others"):
        read(path)


def test_a_link_to_the_file_stays_one(tmp_path: Path) -> None:
    path, link = tmp_path / "real" / "keys.yaml", tmp_path / "keys.yaml"
    path.parent.mkdir()
    write(path, {})
    link.symlink_to(path)
    ring, new = KeyRing(path), make("a")
    write(link, {"a": new.entry})
    assert link.is_symlink()
    assert ring.find(new.text) == new.entry


def test_writing_follows_no_link_laid_in_its_way(tmp_path: Path) -> None:
    path, victim = tmp_path / "keys.yaml", tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / f".keys.yaml.{os.getpid()}").symlink_to(victim)
    write(path, {"a": make("a").entry})
    assert victim.read_text() == "precious"
    assert set(read(path)) == {"a"}


def test_two_who_add_at_once_both_keep_their_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"

    def add(number: int) -> None:
        with editing(path) as entries:
            before = dict(entries)
            time.sleep(0.01)
            entries |= {**before, f"k{number}": make(f"k{number}").entry}

    threads = [threading.Thread(target=add, args=(each,)) for each in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(read(path)) == 8
