from __future__ import annotations

import csv
import io

import pytest

from mlless.errors import UsageError
from mlless.job import Stop, Target
from mlless.report.standing import Standing, head, median_run, rows, standing, table_csv, verdict


def stand(*runs, notes=()) -> Standing:
    """Return how these runs stand, each given as its contestant and what was recorded."""
    by_name: dict[str, dict[int, object]] = {}
    for name, run in runs:
        repetitions = by_name.setdefault(name, {})
        repetitions[len(repetitions) + 1] = run
    return standing(by_name, notes)


def test_what_counts_is_to_come_near_the_best_of_all(recorded):
    found = stand(("one", recorded("a", pace=2.0)), ("good", recorded("b", better=0.1)))
    best = 0.7 + 1 / 31  # of the good one, at step 30
    assert (found.metric, found.value) == ("rmse", pytest.approx(1.01 * best))
    assert list(found.outcomes) == ["good", "one"]
    assert found.outcomes["one"][0].seconds_to is None
    assert found.outcomes["good"][0].seconds_to is not None
    table = {row[0]: dict(zip(head(found), row, strict=True)) for row in rows(found)}
    assert table["one"]["time to rmse 0.7396"] == "never, ended by epochs"
    assert table["one"]["whole run"].startswith("1 min 20 s")


def test_a_target_that_all_had_counts(recorded, job):
    aim = job(stop=Stop(epochs=4, target=Target(metric="rmse", value=0.9)))
    found = stand(("one", recorded("a", {"job": aim})), ("two", recorded("b", {"job": aim}, pace=0.5)))
    assert found.value == 0.9
    one, two = found.outcomes["one"][0], found.outcomes["two"][0]
    assert two.seconds_to == pytest.approx(one.seconds_to / 2)
    different = [("one", recorded("a", {"job": aim})), ("two", recorded("b"))]
    assert stand(*different).value == pytest.approx(1.01 * (0.8 + 1 / 31))


def test_the_spread_of_repetitions_is_shown(recorded):
    found = stand(*(("one", recorded(name, pace=pace)) for name, pace in (("a", 1), ("b", 9), ("c", 2))))
    assert [one.repetition for one in found.outcomes["one"]] == [1, 2, 3]
    (row,) = rows(found)
    assert row[4] == "1 min 20 s (40.0 s to 6 min 00 s)"
    assert median_run(found.outcomes["one"]).run.endswith("c")


def test_who_is_not_apart_from_the_first_is_named(recorded):
    def run(name, pace):
        return recorded(name, pace=pace, price=0.01)

    slow, quick = (
        [("slow", run("a", 3)), ("slow", run("b", 4))],
        [("quick", run("c", 1)), ("quick", run("d", 2))],
    )
    assert [line.partition(" (")[0] for line in verdict(stand(*slow, *quick))] == [
        "quickest: quick",
        "cheapest: quick",
    ]
    mixed = [*quick, ("mixed", run("e", 1.5)), ("mixed", run("f", 9))]
    assert "runs of mixed lie within its spread" in next(verdict(stand(*mixed)))


def test_a_contestant_one_of_whose_runs_never_came_there_has_not_won(recorded):
    found = stand(("one", recorded("a")), ("one", recorded("b", better=-0.5)), ("two", recorded("c", pace=5)))
    assert next(verdict(found)).startswith("quickest: two")
    table = {row[0]: row for row in rows(found)}
    assert "1 of 2 runs" in table["one"][2]


def test_every_run_is_a_line_of_the_csv(recorded):
    found = stand(("one", recorded("a")), ("one", recorded("b", pace=2)), ("two", recorded("c", price=0.1)))
    lines = list(csv.DictReader(io.StringIO(table_csv(found))))
    assert [(line["contestant"], line["repetition"]) for line in lines] == [
        (name, str(one.repetition)) for name, of in found.outcomes.items() for one in of
    ]
    (two,) = [line for line in lines if line["contestant"] == "two"]
    assert float(two["dollars_to"]) == found.outcomes["two"][0].dollars_to
    assert {line["dollars"] for line in lines if line["contestant"] == "one"} == {""}


def test_without_held_out_rows_there_is_nothing_to_compare_by(recorded):
    with pytest.raises(UsageError, match="nothing is held out"):
        stand(("one", recorded("a", metric=None)))
