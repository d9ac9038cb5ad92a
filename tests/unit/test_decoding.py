"""What a decoder says of a file, in words: checked on the errors that msgspec itself raises."""

from __future__ import annotations

import msgspec
import pytest

from mlless.decoding import explained


class Shelf(msgspec.Struct, forbid_unknown_fields=True):
    """A value inside of another one."""

    width: float
    labels: tuple[str, ...] = ()


class Room(msgspec.Struct, forbid_unknown_fields=True):
    """What a file describes."""

    name: str
    shelves: dict[str, Shelf]
    doors: int | None = None
    open: bool = False


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('name = "a"', "the entry shelves is missing"),
        ("name = 1\nshelves = {}", "at name: a whole number where text belongs"),
        ('name = "a"\nshelves = {}\nnmae = 1', "there is no entry of the name nmae"),
        ('name = "a"\nshelves.oak.width = "wide"', "at shelves.width: text where a number belongs"),
        ('name = "a"\nshelves.oak = 3', "at shelves: a whole number where a table belongs"),
        (
            'name = "a"\nshelves = {}\ndoors = 1.5',
            "at doors: a number where a whole number or nothing belongs",
        ),
        ('name = "a"\nshelves = {}\nopen = "yes"', "at open: text where true or false belongs"),
        (
            'name = "a"\nshelves.oak = {width = 1.0, labels = "x"}',
            "at shelves.labels: text where a list belongs",
        ),
        ("name = ", "the text cannot be read: "),
    ],
)
def test_an_error_says_what_is_wrong_and_where(text: str, told: str) -> None:
    with pytest.raises(msgspec.DecodeError) as caught:
        msgspec.toml.decode(text, type=Room)
    assert explained(caught.value).startswith(told)
    assert "`" not in explained(caught.value)
