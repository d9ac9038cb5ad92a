"""Where a command goes: to one Redis or Valkey, or to the nodes of a cluster that have its keys.

A server is taken for a single one until it sends a command elsewhere. Only then the slots of its cluster are
asked for, so that a single server costs no question more. A managed cluster, such as a serverless one, is
reached by its one address.

Commands with several keys are of two kinds. MGET and UNLINK are taken apart here: each key has its own node.
What a script works on together has a common part in braces in its names, by which it is on one node.
"""

from __future__ import annotations

import random
import time
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from redis import exceptions
from redis.crc import key_slot

from mlless.channels.redis_client import Client, Command, passes, together
from mlless.errors import ChannelError

_LONGEST_PAUSE = 1.0  # seconds between two attempts
_PARTED = {"MGET": "GET", "UNLINK": "UNLINK"}  # commands with a key a node, and what each key is asked with
_KEYLESS = ("PING", "INFO", "SCAN", "CLUSTER")
# What only nodes of a cluster answer; MOVED is a kind of ASK.
_CLUSTERED = (exceptions.AskError, exceptions.ClusterCrossSlotError, exceptions.ClusterDownError)
_UNSETTLED = (
    exceptions.MovedError,
    exceptions.TryAgainError,
    exceptions.ClusterDownError,
    exceptions.MasterDownError,
)


class _Range(NamedTuple):
    """Slots of a cluster, the last one included, and the address of who has them."""

    first: int
    last: int
    node: tuple[str, int]


class Router:
    """A Client of one server, or of a cluster; for one thread, with the patience and errors of a Client."""

    def __init__(
        self, url: str, patience: float, lost: type[ChannelError] = ChannelError, *, known: bool = False
    ) -> None:
        self._seed = Client(url, patience, lost, known=known)
        self.where, self.block = self._seed.where, self._seed.block
        self._patience, self._hurried = patience, False
        self._ranges: list[_Range] = []  # none of a single server
        self._nodes: dict[tuple[str, int], Client] = {}
        self._commands: Sequence[Command] = ()

    def call(self, *command: bytes | str | int) -> Any:
        """Return the answer to one command."""
        return self.calls([command])[0]

    def calls(self, commands: Sequence[Command]) -> list[Any]:
        """Return the answers to commands that are sent together."""
        return together([(self, commands)])[0]

    def send(self, commands: Sequence[Command]) -> None:
        """Send commands, whose ``answers`` are to be taken next."""
        self._commands = commands
        if not self._ranges:
            self._seed.send(commands)

    def answers(self) -> list[Any]:
        """Return the answers to the commands sent, if need be after sending them again, or elsewhere."""
        if not self._ranges:
            try:
                return self._seed.answers()
            except ChannelError as error:
                if not isinstance(error.__cause__, _CLUSTERED):
                    raise
            self._learn()
            self._seed.patience = 0.0  # for another node may tell the same
        return self._of_cluster(self._commands)

    def nodes(self) -> list[Client]:
        """Return a client of each server that has keys: of the one, or of all nodes of a cluster."""
        if not self._ranges:
            with suppress(ChannelError):  # a single server says that it is part of no cluster
                self._learn()
        if not self._ranges:
            return [self._seed]
        return [self._node(address) for address in dict.fromkeys(one.node for one in self._ranges)]

    def hurry(self) -> None:
        """Have no patience from now on: a server that is gone must not hold up the end."""
        self._patience, self._hurried = 0.0, True
        for client in (self._seed, *self._nodes.values()):
            client.hurry()

    def close(self) -> None:
        """Let go of all connections; a further command makes others."""
        for client in (self._seed, *self._nodes.values()):
            client.close()

    def _of_cluster(self, commands: Sequence[Command]) -> list[Any]:
        """Return the answers of a cluster: in one round trip, all nodes at the same time."""
        parts = [_parted(command) for command in commands]
        flat = [one for part in parts for one in part]
        answers: dict[int, Any] = {}
        deadline, pause = time.monotonic() + self._patience, 0.0
        while len(answers) < len(flat):
            error = self._attempt(flat, answers)
            if error is None:
                continue
            if time.monotonic() >= deadline:
                self._patience = 0.0  # given up once, it is given up: the end must not wait again
                raise error
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(_LONGEST_PAUSE, 2 * pause or 0.05)
            self._learn()
        each = iter([answers[n] for n in range(len(flat))])
        return [
            _joined(command, [next(each) for _ in part])
            for command, part in zip(commands, parts, strict=True)
        ]

    def _attempt(self, flat: Sequence[Command], answers: dict[int, Any]) -> ChannelError | None:
        """Send to its node what has no answer yet; return an error after which that is to be tried again."""
        places: dict[tuple[str, int], list[int]] = {}
        for n, command in enumerate(flat):
            if n not in answers:
                places.setdefault(self._place(command), []).append(n)
        failed: ChannelError | None = None
        sent: list[tuple[Client, list[int]]] = []
        for address, own in places.items():
            try:
                node = self._node(address)
            except ChannelError as error:  # it cannot be reached
                failed = _unless_for_good(error)
                continue
            node.send([flat[n] for n in own])
            sent.append((node, own))
        for node, own in sent:
            try:
                answers.update(zip(own, node.answers(), strict=True))
            except ChannelError as error:
                if type(error.__cause__) is exceptions.AskError:
                    failed = self._ask(node, flat, own, answers) or failed
                else:
                    failed = _unless_for_good(error)
        return failed

    def _ask(
        self, node: Client, flat: Sequence[Command], own: Sequence[int], answers: dict[int, Any]
    ) -> ChannelError | None:
        """Send commands one by one while a slot moves: its keys are on the old node or already on the new."""
        failed: ChannelError | None = None
        for n in own:
            try:
                try:
                    answers[n] = node.call(*flat[n])
                except ChannelError as error:
                    cause = error.__cause__
                    if type(cause) is not exceptions.AskError:
                        raise
                    other = self._node((str(cause.host) or node.host, int(cause.port)))
                    answers[n] = other.calls([("ASKING",), flat[n]])[1]
            except ChannelError as error:
                failed = _unless_for_good(error)
        return failed

    def _place(self, command: Command) -> tuple[str, int]:
        """Return the node that has the key of a command; any node if it has none, or nobody has the slot."""
        key = _key_of(command)
        slot = 0 if key is None else key_slot(key)
        at = bisect_right(self._ranges, slot, key=lambda one: one.first) - 1
        return self._ranges[max(at, 0)].node

    def _node(self, address: tuple[str, int]) -> Client:
        if address not in self._nodes:
            node = self._nodes[address] = self._seed.beside(*address)
            if self._hurried:
                node.hurry()
        return self._nodes[address]

    def _learn(self) -> None:
        """Ask one after the other who has which slots; what was known stays if no one answers."""
        failed: ChannelError | None = None
        for client in (self._seed, *self._nodes.values()):
            try:
                rows = client.call("CLUSTER", "SLOTS")
            except ChannelError as error:
                failed = error
                continue
            if rows:
                self._ranges = sorted(_range(row, client.host) for row in rows)
                return
        if not self._ranges:
            raise failed or ChannelError("the cluster has no nodes with slots", where=self.where)


def _range(row: Any, host: str) -> _Range:
    """Return a line of CLUSTER SLOTS; a node that does not tell its own name has that of who was asked."""
    first, last, primary, *_ = row
    name = (primary[0] or b"").decode()
    return _Range(first, last, (host if name in ("", "?") else name, primary[1]))


def _unless_for_good(error: ChannelError) -> ChannelError:
    """Return an error after which another attempt may help; raise any other."""
    cause = error.__cause__
    if isinstance(cause, _UNSETTLED) or (isinstance(cause, exceptions.RedisError) and passes(cause)):
        return error
    raise error


def _key_of(command: Command) -> bytes | None:
    """Return the first key of a command; all others of it have the same slot."""
    name = command[0]
    if name in _KEYLESS:
        return None
    at = {"EVAL": 3, "XREAD": command.index("STREAMS") + 1 if name == "XREAD" else 0}.get(str(name), 1)
    key = command[at]
    return key if isinstance(key, bytes) else str(key).encode()


def _parted(command: Command) -> list[Command]:
    """Return a command with several keys as one for each; any other as it is."""
    name, *keys = command
    if name in _PARTED and len(keys) > 1:
        return [(_PARTED[str(name)], key) for key in keys]
    return [command]


def _joined(command: Command, answers: list[Any]) -> Any:
    """Return the answer to a command from those to its parts."""
    if len(answers) == 1:
        return answers[0]
    return answers if command[0] == "MGET" else sum(answers)
