"""How numbers are put to a person: counts, sizes, durations, metrics."""

from __future__ import annotations

from collections.abc import Mapping


def count(number: int, thing: str = "") -> str:
    """Return a whole number with thousands marked, and what is counted in the right number.

    >>> count(1234567, "rating")
    '1,234,567 ratings'
    """
    if not thing:
        return f"{number:,}"
    ending = "" if number == 1 else "es" if thing.endswith("batch") else "s"
    return f"{number:,} {thing}{ending}"


def size(number: float) -> str:
    """Return a number of bytes in a unit that fits, decimal as networks are billed.

    >>> size(34_100_000)
    '34.1 MB'
    """
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "bytes" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def duration(seconds: float) -> str:
    """Return seconds as a person would say them.

    >>> duration(75)
    '1 min 15 s'
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def metrics(values: Mapping[str, float]) -> str:
    """Return metrics under the names that scripts and targets use.

    >>> metrics({"log_loss": 0.45123, "auc": 0.78})
    'log_loss 0.4512, auc 0.7800'
    """
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items())


def not_known(kind: str, number: int) -> str:
    """Return how many rows or values a model of a ``kind`` could make less of, for it has never met them.

    >>> not_known("lr", 1)
    'passed over 1 value of features that the model does not know'
    """
    if kind == "lr":
        return f"passed over {count(number, 'value')} of features that the model does not know"
    return f"in {count(number, 'row')} the model does not know the user, the item or both: these add nothing"
