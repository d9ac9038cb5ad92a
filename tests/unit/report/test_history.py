from __future__ import annotations

import json

import msgspec
import pytest

from mlless.locations import Directory
from mlless.records import StepRecord
from mlless.report.history import (
    HISTORY,
    SUMMARY,
    Following,
    HistoryFile,
    Totals,
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
        history.store()
        history.add(step(1))
        assert following.read() == [step(0)]
    assert following.read() == [step(1)]


def test_steps_that_a_job_went_back_behind_do_not_count(step):
    records = [step(0), step(1), step(2), step(1, rewound_to=1), step(2)]
    assert that_count(records) == [step(0), step(1, rewound_to=1), step(2)]
