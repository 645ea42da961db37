"""Locks: held by one process at a time, with or without the file system's help, and the holder is named."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from jaxcat.errors import CheckpointError
from jaxcat.system import locks
from jaxcat.system.locks import Lock, locked

REPOSITORY = Path(__file__).resolve().parent.parent
HERE = f"process {os.getpid()} on host {socket.gethostname()}, since 20"


@pytest.fixture(params=[errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def without_locks(request, monkeypatch) -> None:
    """A file system that has no locks."""

    def refused(*_: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refused)


def test_a_lock_is_held_once_and_names_its_holder(tmp_path):
    first, second = Lock(tmp_path / ".lock"), Lock(tmp_path / ".lock")
    assert first.acquire()
    assert not second.acquire()
    assert second.holder().startswith(HERE)
    assert str(tmp_path / ".lock") in second.holder()
    first.release()
    assert second.acquire()
    second.release()
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_lock_without_the_file_systems_help_is_held_once_and_says_so(tmp_path, without_locks, caplog):
    (tmp_path / ".lock").touch()  # of a run before the folder was copied to this file system
    first, second = Lock(tmp_path / ".lock"), Lock(tmp_path / ".lock")
    assert first.acquire()
    assert "its file system has no locks, so the file .lock.mark marks it" in caplog.text
    assert not second.acquire()
    assert second.holder().startswith(HERE)
    assert f"if that is gone, delete {tmp_path / '.lock.mark'}" in second.holder()
    first.release()
    assert second.acquire()
    second.release()
    assert not (tmp_path / ".lock.mark").exists()


def test_a_mark_that_another_host_left_names_the_host_and_the_file_to_delete(tmp_path, without_locks):
    from jaxcat.training.place import held

    (tmp_path / ".lock.mark").write_text("4711\nnode-7\n")
    about = {"process": 4711, "host": "node-7", "since": "2026-01-01 00:00:00"}
    (tmp_path / ".lock.holder").write_text(json.dumps(about))
    with pytest.raises(CheckpointError) as refused, held(tmp_path):
        pass
    said = str(refused.value)
    assert "process 4711 on host node-7, since 2026-01-01 00:00:00; if that is gone, delete" in said
    assert str(tmp_path / ".lock.mark") in said
    assert "\n" not in said
    (tmp_path / ".lock.mark").unlink()  # as it says
    with held(tmp_path):
        pass


def test_a_mark_of_a_process_of_this_host_that_has_ended_is_taken_over(tmp_path, without_locks):
    code = f"from jaxcat.system import locks; import fcntl, os; from pathlib import Path\n{REFUSE}"
    code += f"lock = locks.Lock(Path({str(tmp_path / '.lock')!r})); assert lock.acquire(); os._exit(0)"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
    assert (tmp_path / ".lock.mark").exists()
    lock = Lock(tmp_path / ".lock")
    assert lock.acquire()
    lock.release()


REFUSE = (
    "import errno\n"
    "def refused(*_): raise OSError(errno.ENOLCK, 'No locks available')\n"
    "fcntl.flock = refused\n"
)  # fmt: skip


def test_who_waits_is_told_for_whom_and_can_stop(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "SECONDS_BETWEEN_TRIES", 0.01)
    said: list[str] = []
    looks = iter([0, 0, 143])
    first = Lock(tmp_path / ".lock")
    assert first.acquire()
    with locked(tmp_path / ".lock", waiting=said.append, stop=lambda: next(looks)) as status:
        assert status == 143
    assert len(said) == 1
    assert said[0].startswith(HERE)
    first.release()
    with locked(tmp_path / ".lock", waiting=said.append) as status:
        assert status == 0
    assert len(said) == 1


def test_another_system_error_is_not_taken_for_missing_locks(tmp_path, monkeypatch):
    def refused(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", refused)
    with pytest.raises(OSError, match="Input/output"):
        Lock(tmp_path / ".lock").acquire()
