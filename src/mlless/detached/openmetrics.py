"""How a run stands as OpenMetrics text, for Prometheus and its like.

The same text is read as Prometheus' older format: by the textfile collector of node_exporter, for example.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

from mlless.detached.status import State, Status

TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"  # as which a web server is to hand it out
_ESCAPED = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


def exposition(status: Status) -> str:
    """Return the metrics of a run, all with the label ``run``; what is not known is left out."""
    lines = [line for family in _families(status) for line in family]
    return "\n".join([*lines, "# EOF", ""])


def _families(status: Status) -> Iterator[list[str]]:
    run = {"run": status.run}
    states: list[tuple[Mapping[str, str], float | None]] = [
        ({**run, "state": state}, float(status.state == state)) for state in get_args(State)
    ]
    yield _family("state", "gauge", "1 for how the job stands.", states)
    for name, text, value in (
        ("step", "The last step that is known.", status.step),
        ("epoch", "Passes over the data so far.", status.epoch),
        ("epochs", "Passes over the data at most.", status.epochs),
        ("workers", "Workers in the last step.", status.workers),
        ("train_loss", "The exponential average of the training loss.", status.train_loss),
        ("seconds", "Seconds of training so far.", status.seconds),
        ("cost_dollars", "The bill so far.", status.cost),
    ):
        yield _family(name, "gauge", text, [(run, value)])
    for name, text, scores in (
        ("heldout", "Held-out metrics of the newest evaluation.", status.heldout),
        ("model", "Held-out metrics of the model in the run's place.", status.best),
    ):
        samples = [({**run, "metric": metric}, value) for metric, value in scores.items()]
        yield _family(name, "gauge", text, samples)
    for name, text, value in (
        ("published_bytes", "Bytes that workers have published.", status.bytes_published),
        ("read_bytes", "Bytes that workers have read of others' updates.", status.bytes_read),
        ("fetched_bytes", "Bytes of mini-batches.", status.bytes_fetched),
        ("lost_functions", "Functions that were lost.", status.lost),
        ("handovers", "Functions that handed over to a successor.", status.handovers),
    ):
        yield _family(name, "counter", text, [(run, value)])


def _family(
    name: str, kind: str, text: str, samples: Sequence[tuple[Mapping[str, str], float | None]]
) -> list[str]:
    """Return the lines of a metric; none if it has no value."""
    ending = "_total" if kind == "counter" else ""
    lines = [
        f"mlless_{name}{ending}{{{_labels(labels)}}} {float(value)!r}"
        for labels, value in samples
        if value is not None
    ]
    return [f"# TYPE mlless_{name} {kind}", f"# HELP mlless_{name} {text}", *lines] if lines else []


def _labels(labels: Mapping[str, str]) -> str:
    return ",".join(f'{name}="{value.translate(_ESCAPED)}"' for name, value in labels.items())
