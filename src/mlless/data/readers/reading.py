"""PURE: how the rows of a source are read, where the source does not say it itself."""

from __future__ import annotations

import shlex
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, TypedDict

from mlless.data.features import RatingsLayout
from mlless.errors import UsageError

LABEL = "a label of 0 or 1, of -1 or 1, or of false or true"


class ReadingOptions(TypedDict, total=False):
    """The fields of `Reading`, as options of a function."""

    user_column: str | int | None
    item_column: str | int | None
    rating_column: str | int | None
    separator: str | None
    header: bool | None
    labels: str | tuple[str, str] | None
    drop_unlabelled: bool
    skip_malformed: bool


def reading_of(options: ReadingOptions) -> Reading:
    """Return the options of a function as one; UsageError for labels that do not tell two classes apart.

    Labels may also be text with a comma, as on the command line: ``no,yes``.
    """
    given: dict[str, Any] = dict(options)
    if (labels := given.get("labels")) is not None:
        pair = tuple(labels.split(",") if isinstance(labels, str) else map(str, labels))
        if len(set(pair)) != 2 or len(pair) != 2:
            expected = "two that differ, that of no click first: no,yes"
            raise UsageError("no such labels", expected=expected, found=",".join(pair))
        given["labels"] = pair
    return Reading(**given)


def plain_label(label: str) -> str:
    """Return the one way to write a label that is a number, or false or true."""
    try:
        return repr(float(label))
    except ValueError:
        return label.lower() if label.lower() in ("false", "true") else label


def labels_cure(found: Collection[str]) -> str:
    """Return what to do about unknown labels, where these have been found so far."""
    told = shlex.quote(",".join(sorted(found)))
    names = f": --labels {told}" if len(found) == 2 else " with --labels no,yes"
    return f"say which two labels there are, that of no click first{names}"


@dataclass(frozen=True, slots=True)
class Reading:
    """How rows are to be read, where the source does not say it; by default it does.

    Attributes
    ----------
    user_column, item_column, rating_column : str or int, optional
        Columns of ratings: a name, or a number from 1. By default they are found by their usual names.
    separator : str, optional
        What separates the columns of text. It goes before that of a description, a data set or a model. By
        default it is theirs, or found from the first lines.
    header : bool, optional
        Whether the first line names the columns. By default this is found from the line.
    labels : pair of str, optional
        The label of no click and that of a click. By default 0 and 1, -1 and 1, or false and true. As an
        option of a function it may also be text with a comma: ``"no,yes"``.
    drop_unlabelled : bool
        Whether to leave rows without a rating or label out and count them. By default they raise InputError.
    skip_malformed : bool
        Whether to leave malformed rows out and count them, if they are few. By default they raise InputError.
    names : tuple of str, optional
        The names of all columns in order, for ratings without a header.
    """

    user_column: str | int | None = None
    item_column: str | int | None = None
    rating_column: str | int | None = None
    separator: str | None = None
    header: bool | None = None
    labels: tuple[str, str] | None = None
    drop_unlabelled: bool = False
    skip_malformed: bool = False
    names: tuple[str, ...] | None = None

    @property
    def columns(self) -> dict[str, str | int]:
        """The columns of ratings that were given, by their role."""
        given = {"user": self.user_column, "item": self.item_column, "rating": self.rating_column}
        return {role: column for role, column in given.items() if column is not None}

    def described(self, layout: RatingsLayout) -> Reading:
        """Return this with the columns that a description gives, and its separator unless one was given."""
        if self.columns:
            cure = "give only one of them"
            raise UsageError("--columns says what the columns are, and other options do, too", cure=cure)
        return replace(
            self,
            user_column=layout.user,
            item_column=layout.item,
            rating_column=layout.rating,
            separator=self.separator or layout.separator,
            names=layout.names,
        )
