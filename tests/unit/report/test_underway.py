"""What a job says of itself, whether it is alive, and the request to stop."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from mlless.deployment import Addresses, Deployment
from mlless.detached.status import status
from mlless.errors import DatasetError, UsageError
from mlless.locations import Directory
from mlless.report.lock import GUARD, LOCK, is_locked, locked
from mlless.report.underway import (
    STOP,
    UNDERWAY,
    Detached,
    heeding,
    is_alive,
    read_underway,
    underway,
    write_underway,
)

PATIENCE = 20.0


def test_it_comes_back_without_credentials(tmp_path, job):
    store = "redis://me:s3cret@one:6379/0"
    deployment = Deployment(store=store, bus="amqp://u:s3cret@two/v")
    addresses = deployment.addresses("mlless-0123", None)
    said = underway("1.0", job(), deployment, addresses, Detached(7, "/log", ("once",)))
    write_underway(Directory(tmp_path), said)
    assert read_underway(Directory(tmp_path)) == said
    assert "s3cret" not in (tmp_path / UNDERWAY).read_text()
    assert said.addresses == Addresses("mlless-0123", ("redis://one:6379/0",), "amqp://two/v", 60.0)
    assert said.pid == os.getpid()


def test_without_a_job_there_is_nothing_to_say(tmp_path):
    assert read_underway(Directory(tmp_path)) is None
    assert not is_alive(Directory(tmp_path))


def test_what_is_not_of_this_release_is_told(tmp_path):
    (tmp_path / UNDERWAY).write_text('{"version": 2}')
    with pytest.raises(DatasetError, match="not the files of a run of this release"):
        status(tmp_path)


@pytest.mark.parametrize("name", [LOCK, GUARD])
def test_who_holds_a_lock_is_alive(tmp_path, name):
    run = Directory(tmp_path)
    with locked(run, name):
        assert is_alive(run)
        with pytest.raises(UsageError, match="another job writes to this run's folder"), locked(run, name):
            pass
    assert not is_alive(run)
    assert not (tmp_path / name).exists()


def test_the_lock_of_a_process_that_was_killed_counts_for_nothing(tmp_path):
    code = (
        "import os, signal; from pathlib import Path; from mlless.locations import Directory\n"
        "from mlless.report.lock import locked\n"
        f"with locked(Directory(Path({str(tmp_path)!r}))): os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    assert (tmp_path / LOCK).exists()
    assert not is_locked(tmp_path / LOCK)
    with locked(Directory(tmp_path)):
        assert is_locked(tmp_path / LOCK)


def test_a_request_to_stop_is_made_until_somebody_takes_it(tmp_path, monkeypatch):
    monkeypatch.setattr("mlless.report.underway._NEAR", 0.01)
    answers, taken = [False, False, True], threading.Event()

    def ask() -> bool:
        answer = answers.pop(0)
        if answer:
            taken.set()
        return answer

    with heeding(Directory(tmp_path), ask) as looks:
        (tmp_path / STOP).write_bytes(b"")
        assert taken.wait(PATIENCE)
    assert answers == []
    assert looks.made == 0  # only those in an object store are counted
