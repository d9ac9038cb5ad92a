from __future__ import annotations

import threading
import warnings

from mlless.errors import ChannelError, MissingUpdate
from mlless.report.keeper import Keeper

PATIENCE = 20.0


class Shelf:
    """Where a keeper puts models away; a write takes ``takes`` seconds of a clock that it moves."""

    def __init__(self, takes: float = 0.0) -> None:
        self.now, self.takes, self.newest = 0.0, takes, 0
        self.written: list[tuple[float, int]] = []
        self.errors: list[Exception] = []
        self.keeper = Keeper(self.write, lambda: self.now)

    def write(self) -> int:
        if self.errors:
            raise self.errors.pop()
        self.written.append((self.now, self.newest))
        self.now += self.takes
        return self.newest

    def step(self, number: int) -> None:
        """Come to a new best model an eighth of a second later."""
        self.now += 0.125
        self.newest = number
        self.keeper.want(number)
        self.keeper.go_on()
        self.keeper.finish(PATIENCE, last=False)


def test_a_second_lies_between_two_models():
    shelf = Shelf()
    for number in range(1, 36):
        shelf.step(number)
    assert [step for _, step in shelf.written] == [8, 16, 24, 32]
    assert all(
        later - now >= 1.0 for (now, _), (later, _) in zip(shelf.written, shelf.written[1:], strict=False)
    )


def test_no_more_than_a_fiftieth_of_the_time_goes_into_it():
    shelf = Shelf(takes=0.5)
    for number in range(1, 3000):
        shelf.step(number)
    assert len(shelf.written) > 3
    for count, (now, _) in enumerate(shelf.written[1:], 2):
        assert count * 0.5 <= 0.02 * now


def test_what_is_put_away_is_not_put_away_again():
    shelf = Shelf()
    shelf.step(1)
    for _ in range(50):
        shelf.now += 0.125
        shelf.keeper.go_on()
        shelf.keeper.finish(PATIENCE, last=False)
    assert [step for _, step in shelf.written] == [1]
    assert shelf.keeper.step == 1


def test_the_last_one_is_put_away_in_the_end_and_only_if_asked():
    shelf = Shelf()
    shelf.step(1)
    assert shelf.keeper.step == 0
    shelf.keeper.finish(PATIENCE, last=True)
    assert shelf.keeper.step == 1


def test_what_fails_is_told_once_and_tried_again():
    shelf = Shelf()
    shelf.errors = [ChannelError("redis://a:secret@b is full") for _ in range(3)]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for number in range(1, 60):
            shelf.step(number)
    assert len(told) == 1
    assert "redis://a:***@b is full" in str(told[0].message)
    assert shelf.keeper.step > 0


def test_a_model_that_is_not_there_yet_is_waited_for_in_silence():
    shelf = Shelf()
    shelf.errors = [MissingUpdate("best")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in range(1, 30):
            shelf.step(number)
    assert shelf.keeper.step == 24


def test_never_two_at_once():
    begun, go_on, calls = threading.Event(), threading.Event(), []

    def write() -> int:
        calls.append(1)
        begun.set()
        assert go_on.wait(PATIENCE)
        return 1

    now = 0.0
    keeper = Keeper(write, lambda: now)
    keeper.want(1)
    now = 10.0
    keeper.go_on()
    assert begun.wait(PATIENCE)
    keeper.want(2)
    now = 1000.0
    keeper.go_on()
    keeper.finish(0.0, last=True)  # it does not wait for longer than it was told to
    assert len(calls) == 1
    go_on.set()
    keeper.finish(PATIENCE, last=False)
    assert keeper.step == 1
