"""How amounts of money are put."""

from __future__ import annotations

import math


def money(dollars: float) -> str:
    """Return an amount with the digits that matter: jobs cost cents, or less.

    >>> money(0.0123456)
    '$0.0123'
    """
    digits = 2 if dollars >= 1 or dollars <= 0 else min(2 - math.floor(math.log10(dollars)), 9)
    return f"${dollars:.{digits}f}"
