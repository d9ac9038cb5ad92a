from __future__ import annotations

import contextlib
import json

import msgspec
import pytest

from mlless.data.memory import MemoryObjects
from mlless.locations import Directory, Prefix
from mlless.records import StepRecord
from mlless.report.history import (
    HISTORY,
    SUMMARY,
    Following,
    HistoryFile,
    Totals,
    read_history,
    read_lines,
    read_summary,
    that_count,
    write_summary,
)


def test_history_is_one_object_a_step(tmp_path, step):
    records = [step(0, heldout={"rmse": 1.0}), step(1, loss=None)]
    with HistoryFile(Directory(tmp_path)) as history:
        for record in records:
            history.add(record)
    lines = (tmp_path / HISTORY).read_bytes().splitlines()
    assert [msgspec.json.decode(line, type=StepRecord) for line in lines] == records


def test_totals(step):
    totals = Totals()
    for number in range(3):
        totals.add(step(number))
    assert (totals.bytes_out, totals.bytes_in, totals.bytes_fetched, totals.entries) == (300, 270, 150, 21)
    assert totals.times().compute == pytest.approx(1.2)


def test_summary_comes_back_and_is_readable(tmp_path, summary):
    write_summary(Directory(tmp_path), summary())
    assert read_summary(Directory(tmp_path)) == summary()
    assert json.loads((tmp_path / SUMMARY).read_text())["heldout"] == {"rmse": 0.8}


def test_a_history_is_followed_as_it_grows(tmp_path, step):
    run, lines = Directory(tmp_path), [msgspec.json.encode(step(number)) + b"\n" for number in range(6)]
    following = Following(run, under_way=True)
    assert following.read() == []
    path = tmp_path / HISTORY
    path.write_bytes(b"".join(lines[:2]) + lines[2][:10])
    assert [record.step for record in following.read()] == [0, 1]
    assert following.read() == []  # half a line is none yet
    path.write_bytes(b"".join(lines[:4]))
    assert [record.step for record in following.read()] == [2, 3]
    path.unlink()
    path.write_bytes(b"".join(lines[:5]))  # another file that begins as the one before: a resumed run
    assert [record.step for record in following.read()] == [4]


def test_a_history_that_is_cut_off_for_a_moment_is_read_on(tmp_path, step):
    run, path = Directory(tmp_path), tmp_path / HISTORY
    lines = [msgspec.json.encode(step(number)) + b"\n" for number in range(6)]
    following = Following(run, under_way=True)
    path.write_bytes(b"".join(lines[:4]))
    assert len(following.read()) == 4
    for whole in (b"", b"".join(lines[:2]), lines[0][:10]):  # as while it is written again
        path.write_bytes(whole)
        assert following.read() == []
    path.write_bytes(b"".join(lines))
    assert following.read() == [step(4), step(5)]


@pytest.mark.parametrize("first", [0, 7])
@pytest.mark.parametrize("count", [1, 2, 9])
def test_a_history_that_begins_anew_is_read_from_its_start(tmp_path, step, first, count):
    run, path = Directory(tmp_path), tmp_path / HISTORY
    path.write_bytes(b"".join(msgspec.json.encode(step(number)) + b"\n" for number in range(3)))
    following = Following(run, under_way=False)
    assert len(following.read()) == 3
    anew = [step(first + number, time=100.0 + number) for number in range(count)]
    path.write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for record in anew))
    assert following.read() == anew


def test_of_a_job_that_replaces_a_run_its_own_history_is_followed(tmp_path, step):
    run = Directory(tmp_path)
    (tmp_path / HISTORY).write_bytes(msgspec.json.encode(step(9)) + b"\n")
    with HistoryFile(run, replaces=True) as history:
        following = Following(run, under_way=True)
        assert following.read() == []
        history.add(step(0))
        assert following.read() == [step(0)]  # at once
        history.store()
        history.add(step(1))
        assert following.read() == [step(1)]


class Puts(MemoryObjects):
    """An object store that counts what is put; ``at`` is called before each request."""

    def __init__(self) -> None:
        super().__init__()
        self.distant = True
        self.lines = 0
        self.at = lambda path: None

    def put(self, path, data):
        self.at(path)
        self.lines += bytes(data).count(b"\n")
        super().put(path, data)

    def get(self, path):
        self.at(path)
        return super().get(path)


@pytest.fixture
def bucket(monkeypatch):
    """A run in an object store, and that store."""
    objects = Puts()
    monkeypatch.setattr("mlless.report.history.open_objects", lambda place: objects)
    return Prefix("s3", "bucket", "run"), objects


def pieces(objects) -> set[str]:
    return {name for name in objects.names() if name.startswith(HISTORY)}


def test_in_an_object_store_no_line_is_put_often(bucket, step):
    run, objects = bucket
    following, seen = Following(run, under_way=True), []
    with HistoryFile(run) as history:
        for number in range(1000):
            history.add(step(number))
            assert history.store() > 0
            assert len(pieces(objects)) <= 12
            if number % 37 == 0:
                seen += following.read()
        assert history.store() == 0  # there is nothing new
        assert objects.lines < 12_000  # of 500,500, were it whole each time
        assert [record.step for record in read_history(run)] == list(range(1000))
        assert history.store(whole=True) > 0
        assert history.store(whole=True) == 0
    assert pieces(objects) == {HISTORY}
    assert [record.step for record in seen + following.read()] == list(range(1000))


@pytest.mark.parametrize("until", range(1, 40))
def test_a_history_is_whole_whenever_its_writer_is_killed(bucket, step, until):
    run, objects = bucket
    stored, requests = 0, iter(range(10**6))

    def killed(path):
        if next(requests) == until:
            raise KeyboardInterrupt

    objects.at = killed
    with contextlib.suppress(KeyboardInterrupt), HistoryFile(run) as history:
        for number in range(20):
            history.add(step(number))
            history.store()
            stored = number + 1
        history.store(whole=True)
    objects.at = lambda path: None
    assert stored >= min(until - 1, 20)
    assert len(read_history(run)) >= stored
    before = read_lines(run)
    with HistoryFile(run, before=before) as history:  # it is resumed
        assert pieces(objects) == {HISTORY}
        history.add(step(99))
        history.store()
    assert read_lines(run).startswith(before)
    assert read_history(run)[-1].step == 99
    with HistoryFile(run):  # and replaced
        assert pieces(objects) == {HISTORY}
        assert read_lines(run) == b""


def test_what_is_put_together_while_it_is_read_is_read_again(bucket, step):
    run, objects = bucket
    with HistoryFile(run) as history:
        for number in range(5):
            history.add(step(number))
            history.store()
        assert len(pieces(objects)) > 1
        last = max(pieces(objects))

        def merge(path):
            if path == last:
                objects.at = lambda path: None
                history.store(whole=True)

        objects.at = merge
        assert len(read_history(run)) == 5
    assert pieces(objects) == {HISTORY}


def test_a_run_in_an_object_store_that_is_replaced_stays_until_there_is_another(bucket, step):
    run, objects = bucket
    with HistoryFile(run) as history:
        for number in range(3):
            history.add(step(number))
            history.store()
    old = pieces(objects)
    assert len(old) > 1
    with HistoryFile(run, replaces=True) as history:
        assert pieces(objects) == old
        assert len(read_history(run)) == 3
        history.add(step(7))
        following = Following(run, under_way=True)
        assert following.read() == []
        history.store()
        assert following.read() == read_history(run) == [step(7)]
        history.add(step(8))
        history.store()
    assert objects.names() == pieces(objects)
    assert read_history(run) == [step(7), step(8)]


def test_steps_that_a_job_went_back_behind_do_not_count(step):
    records = [step(0), step(1), step(2), step(1, rewound_to=1), step(2)]
    assert that_count(records) == [step(0), step(1, rewound_to=1), step(2)]
