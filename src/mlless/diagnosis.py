"""What the checks of a deployment come to: findings, in words, with what to do about what is wrong."""

from __future__ import annotations

from statistics import median
from typing import Literal

import msgspec

import mlless
from mlless import kernels
from mlless.channels.redis_health import EVICTS, EVICTS_CURE, OLDEST, SILENT, SILENT_CURE, Health
from mlless.errors import DatasetError, JobError, UsageError
from mlless.memory import megabytes
from mlless.messages import PROTOCOL
from mlless.probe import ROUNDS, Sight
from mlless.report.wording import count, duration, size

_SKEW = 60.0  # seconds that clocks may differ; servers that check signatures allow some minutes

Outcome = Literal["ok", "warning", "failed"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one check. ``exit_code`` is that of the error if it failed; ``facts`` the numbers."""

    check: str
    outcome: Outcome = "ok"
    text: str
    cure: str | None = None
    exit_code: int = 0
    facts: dict[str, object] = {}


def server_finding(address: str, health: Health | None) -> Finding:
    """Tell of a server's release and memory; a job refuses one that may drop what it needs."""
    if health is None:
        return Finding(
            check="server",
            outcome="warning",
            text=f"{address}: {SILENT}",
            cure=SILENT_CURE,
        )
    limit = f"of {size(health.limit)}, {health.policy}" if health.limit else "without a limit"
    text = f"{address}: {health.release}, {size(health.used)} used {limit}, {size(health.free)} free"
    facts: dict[str, object] = {"address": address, **msgspec.structs.asdict(health)}
    if health.evicts:
        return Finding(
            check="server",
            outcome="failed",
            text=f"{text}; {EVICTS}",
            cure=EVICTS_CURE,
            exit_code=UsageError.exit_code,
            facts=facts,
        )
    if health.major < OLDEST:
        cure = f"update it: mlless is made for Redis {OLDEST} and newer, and for Valkey"
        return Finding(check="server", outcome="warning", text=text, cure=cure, facts=facts)
    return Finding(check="server", text=text, facts=facts)


def functions_finding(sights: list[Sight], start: float, limit: float | None) -> Finding:
    """Tell how long it took until all were there, and what they have."""
    there = sights[0]
    each = f"{megabytes(min(one.memory for one in sights))} of memory"
    ending = "" if limit is None else f", ended after {duration(limit)}"
    imports = max(one.import_seconds for one in sights)
    text = (
        f"{count(len(sights), 'function')} at once, the last there after {duration(start)} "
        f"({imports:.2f} s of imports), each with {each}{ending}; {there.machine}"
    )
    facts: dict[str, object] = {
        "start_seconds": start,
        "time_limit": limit,
        "functions": [msgspec.to_builtins(one) for one in sights],
    }
    other = next((one.kernels for one in sights if one.kernels != kernels.NAME), None)
    if other is not None:
        return Finding(
            check="functions",
            outcome="warning",
            text=f"{text}; kernels {other}, and here {kernels.NAME}",
            cure="install mlless where functions run from a wheel, or with a C compiler",
            facts=facts,
        )
    return Finding(check="functions", text=text, facts=facts)


def versions_finding(sights: list[Sight]) -> Finding:
    """Compare releases: a job refuses workers of another one."""
    other = next(
        (one for one in sights if (one.protocol, one.version) != (PROTOCOL, mlless.__version__)), None
    )
    if other is not None:
        return Finding(
            check="versions",
            outcome="failed",
            text=f"functions have protocol {other.protocol} of mlless {other.version}, "
            f"and here it is protocol {PROTOCOL} of mlless {mlless.__version__}",
            cure="install the same release of mlless on both sides",
            exit_code=JobError.exit_code,
        )
    pythons = ", ".join(sorted({one.python for one in sights}))
    text = f"mlless {mlless.__version__}, protocol {PROTOCOL} on both sides; Python {pythons} there"
    return Finding(check="versions", text=text)


def clocks_finding(sights: list[Sight], heard: dict[int, list[float]]) -> Finding:
    """Compare clocks by the midpoint of each function's quickest greeting (Cristian, 1989)."""
    worst, doubt = 0.0, 0.0
    for worker, sight in enumerate(sights):
        quickest = min(range(ROUNDS), key=lambda n: sight.greetings[n][1] - sight.greetings[n][0])
        sent, answered = sight.greetings[quickest]
        skew = (sent + answered) / 2 - heard[worker][quickest]
        if abs(skew) >= abs(worst):
            worst, doubt = skew, (answered - sent) / 2
    text = f"{milliseconds(abs(worst))} {'ahead' if worst > 0 else 'behind'} at most, ± {milliseconds(doubt)}"
    facts: dict[str, object] = {"skew": worst, "doubt": doubt}
    if abs(worst) - doubt > _SKEW:
        cure = "set both clocks by NTP: object stores refuse requests that were signed at another time"
        return Finding(check="clocks", outcome="warning", text=text, cure=cure, facts=facts)
    return Finding(check="clocks", text=text, facts=facts)


def channels_from_there(sights: list[Sight]) -> Finding:
    """Tell how store and bus look to functions, and what a job may declare of the store."""
    messages = median(answered - sent for one in sights for sent, answered in one.greetings[1:])
    latency = median(one.store.latency for one in sights)
    put, get = median(one.store.put for one in sights), median(one.store.get for one in sights)
    rate = len(sights) * min(put, get)  # that all of them have together, in bytes a second
    text = (
        f"store {milliseconds(latency)} a round trip, {speeds(put, get)}; "
        f"bus {milliseconds(messages)} (median over functions, all at once); "
        f"to declare it: --store-rate {max(1, round(rate / 1e6))} --store-latency {latency:.6f}"
    )
    facts: dict[str, object] = {"latency": latency, "put": put, "get": get, "bus_latency": messages}
    facts["store_rate"] = rate
    return Finding(check="from there", text=text, facts=facts)


def dataset_from_there(sights: list[Sight]) -> Finding:
    """Tell whether functions can read the data set, and how quickly."""
    for worker, sight in enumerate(sights):
        if sight.dataset_error:
            return Finding(
                check="data there",
                outcome="failed",
                text=f"function {worker} cannot read the data set: {sight.dataset_error}",
                cure="put the data set where functions can read it, and give them the permission",
                exit_code=DatasetError.exit_code,
            )
    read = [one.dataset for one in sights if one.dataset is not None]
    get, latency = median(one.get for one in read), median(one.latency for one in read)
    text = f"opened in {milliseconds(latency)}, a group read at {size(get)}/s"
    return Finding(check="data there", text=text, facts={"latency": latency, "get": get})


def milliseconds(seconds: float) -> str:
    """Return a short time in words."""
    return f"{seconds * 1e3:.2f} ms" if seconds < 1 else duration(seconds)


def speeds(put: float, get: float) -> str:
    """Return in words how quickly a store takes and gives bytes."""
    return f"writes {size(put)}/s, reads {size(get)}/s"
