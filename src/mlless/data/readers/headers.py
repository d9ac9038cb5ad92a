"""Headers of several parts of one table: each part may have one, and all are the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlless.errors import InputError


@dataclass(frozen=True, slots=True)
class Header:
    """The ``names`` of the columns, as the part so called has them."""

    part: str
    names: Sequence[str]

    def check(self, part: str, names: Sequence[str]) -> bool:
        """Return whether the first row of a later part, ``names``, is the header again; no row of data.

        InputError if it is another header: a row, half of which or more are the same names.
        """
        if list(names) == list(self.names):
            return True
        same = len(set(names) & set(self.names))
        if same < 2 or 2 * same < len(names):  # one may well be a value, too
            return False
        raise self.differs(part, names)

    def differs(self, part: str, names: Sequence[str]) -> InputError:
        """Return the error of a part with other ``names``."""
        return InputError(
            "parts with other columns",
            where=part,
            expected=f"{', '.join(self.names)}, as in {self.part}",
            found=", ".join(names),
            cure="name parts of one table, or write them anew with the same columns",
        )
