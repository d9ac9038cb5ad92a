"""What the tests of money share: how long things take on the virtual clock, and tariffs of their own."""

from __future__ import annotations

from pathlib import Path

from mlless.simulation.conditions import Durations
from mlless.simulation.jobs import Simulation

# A step as published, and an ending that takes as long as a few of them.
DURATIONS = Durations(
    work={"step": lambda workers: 1 / (4.438 - 0.2425 * workers), "evaluate": 2e-4, "merge": 1e-7},
    message=2e-3,
    request=1e-3,
    byte=1e-8,
    fit=0.5,
)
ENDLESS = 100_000  # epochs


def dollars(done: Simulation) -> float:
    assert done.bill is not None
    return done.bill.total


def own_tariff(path: Path, rest: str) -> str:
    """Write a tariff whose functions cost what AWS Lambda's do; return its path."""
    entry = 'source = "test"\ndate = "2026-01-01"\n'
    more = f"{rest}\n{entry}" if rest else ""
    path.write_text(f'name = "own"\nnote = ""\n[function]\ngb_second = 0.0000166667\n{entry}{more}')
    return str(path)
