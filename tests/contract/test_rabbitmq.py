"""The RabbitMQ bus keeps the contract of a bus."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
from servers.rabbitmq import Broker

from mlless.channels.ports import Link
from mlless.channels.rabbitmq_bus import RabbitHub, RabbitLink
from mlless.testing.contracts import Bus, BusContract


class RabbitBus:
    """Hub and links of one job at a broker."""

    def __init__(self, url: str) -> None:
        self._url, self._job = url, f"mlless-{secrets.token_hex(6)}"
        self.hub = RabbitHub(url, self._job, expiry=600.0, patience=30.0)
        self._links: list[RabbitLink] = []

    def link(self, worker: int, generation: int) -> Link:
        self._links.append(RabbitLink(self._url, self._job, worker, generation, patience=30.0))
        return self._links[-1]

    def send_raw(self, link: Link, data: bytes) -> None:
        assert isinstance(link, RabbitLink)
        link._send(data)

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
