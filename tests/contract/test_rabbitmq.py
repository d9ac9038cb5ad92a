"""The RabbitMQ bus keeps the contract of a bus."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
from servers.rabbitmq import Broker

from mlless.channels.ports import Link
from mlless.channels.rabbitmq_bus import RabbitHub, RabbitLink
from mlless.messages import FromWorker, ToWorker
from mlless.testing.contracts import Bus, BusContract


class _Joining:
    """A link that opens with its first message, as the contract does not say sooner whose it is."""

    def __init__(self, url: str, job: str) -> None:
        self._url, self._job = url, job
        self._link: RabbitLink | None = None

    def send(self, message: FromWorker) -> None:
        if self._link is None:
            self._link = RabbitLink(self._url, self._job, message.worker, message.generation)
        self._link.send(message)

    def send_raw(self, data: bytes) -> None:
        assert self._link is not None
        self._link._send(data)

    def receive(self, timeout: float) -> ToWorker:
        assert self._link is not None
        return self._link.receive(timeout)

    def close(self) -> None:
        if self._link is not None:
            self._link.close()


class RabbitBus:
    """Hub and links of one job at a broker."""

    def __init__(self, url: str) -> None:
        self._url, self._job = url, f"mlless-{secrets.token_hex(6)}"
        self.hub = RabbitHub(url, self._job, workers=5, expiry=600.0)
        self._links: list[_Joining] = []

    def link(self) -> Link:
        self._links.append(_Joining(self._url, self._job))
        return self._links[-1]

    def send_raw(self, link: Link, data: bytes) -> None:
        assert isinstance(link, _Joining)
        link.send_raw(data)

    def close(self) -> None:
        for link in self._links:
            link.close()
        self.hub.destroy()


class TestRabbitBus(BusContract):
    @pytest.fixture
    def bus(self, broker: Broker) -> Iterator[Bus]:
        bus = RabbitBus(broker.url)
        yield bus
        bus.close()
