"""What a Redis or Valkey server says of itself: its release, its memory, and what it does when full."""

from __future__ import annotations

from functools import reduce

import msgspec

from mlless.channels.redis_routing import Router
from mlless.errors import ChannelError, UsageError, hidden, warn

OLDEST = 6
EVICTS = "when it is full it drops keys, and with them a job's updates"
EVICTS_CURE = (
    "set its maxmemory-policy to noeviction: CONFIG SET maxmemory-policy noeviction, "
    "or in the settings of the service"
)
SILENT = "does not let us ask how it is"
SILENT_CURE = "allow +info in its ACL, or look up yourself: its maxmemory-policy must be noeviction"


class Health(msgspec.Struct, frozen=True):
    """A server's state; memory in bytes.

    ``limit`` is 0 if the server sets itself none, ``machine`` what its machine has, 0 if it does not say.
    """

    release: str
    major: int
    used: int
    limit: int
    machine: int
    policy: str

    @property
    def free(self) -> int:
        """Bytes that it can still take."""
        return max(0, (self.limit or self.machine) - self.used)

    @property
    def evicts(self) -> bool:
        """Whether it drops keys of ours to make room."""
        return self.limit > 0 and self.policy != "noeviction"


def inspect(url: str) -> Health | None:
    """Return what the server says, None if we may not ask it; ChannelError if it cannot be reached.

    Everything is in INFO. CONFIG, which services often forbid, is not needed. Of a cluster all nodes are
    asked: its memory is that of all, and it drops keys if one of them does.
    """
    client = Router(url, patience=0.0)
    try:
        told = [node.calls([("INFO", "server"), ("INFO", "memory")]) for node in client.nodes()]
    except ChannelError:
        return None
    finally:
        client.close()
    first, *rest = [parsed(f"{server.decode()}\n{memory.decode()}") for server, memory in told]
    return reduce(_both, rest, first)


def _both(one: Health, other: Health) -> Health:
    """Return how two nodes of a cluster are together."""
    limited = (one.limit or one.machine) + (other.limit or other.machine)
    return msgspec.structs.replace(
        one if one.evicts or not other.evicts else other,
        used=one.used + other.used,
        limit=limited if one.limit or other.limit else 0,
        machine=one.machine + other.machine,
    )


def check(url: str) -> None:
    """Raise UsageError if the server may drop keys of ours, which all expire; warn if we may not ask it."""
    health = inspect(url)
    if health is None:
        warn(f"{hidden(url)} {SILENT}: {SILENT_CURE}", RuntimeWarning)
    elif health.evicts:
        found = f"the maxmemory-policy {health.policy}"
        raise UsageError(EVICTS, where=hidden(url), found=found, cure=EVICTS_CURE)


def parsed(info: str) -> Health:
    """Return what the lines of an INFO say."""
    values = dict(line.split(":", 1) for line in info.split() if ":" in line)
    valkey = values.get("valkey_version")
    version = valkey or values.get("redis_version", "0")
    return Health(
        release=f"{'Valkey' if valkey else 'Redis'} {version}",
        # Every Valkey is a Redis 7.2 or newer.
        major=int(values.get("redis_version", version).partition(".")[0]),
        used=int(values.get("used_memory", 0)),
        limit=int(values.get("maxmemory", 0)),
        machine=int(values.get("total_system_memory", 0)),
        policy=values.get("maxmemory_policy", "noeviction"),
    )
