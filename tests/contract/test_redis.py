"""Store and bus on Redis and Valkey keep the contracts: over TCP, a local socket, TLS, and on two servers."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

import pytest
from servers.redis import Cluster, Server

from mlless.channels.ports import KeyValueStore, Link
from mlless.channels.redis_bus import RedisHub, RedisLink
from mlless.channels.redis_store import RedisStore
from mlless.testing.contracts import Bus, BusContract, KeyValueStoreContract

_EXPIRY = 600.0
_PATIENCE = 30.0


@pytest.fixture
def job() -> str:
    """A name of its own for every test."""
    return f"mlless-{secrets.token_hex(6)}"


class OnServers(KeyValueStoreContract):
    @pytest.fixture
    def open_store(self, urls: tuple[str, ...], job: str) -> Iterator[Callable[[], KeyValueStore]]:
        stores = []

        def opened() -> KeyValueStore:
            stores.append(RedisStore(urls, job, _EXPIRY, _PATIENCE))
            return stores[-1]

        yield opened
        for store in stores:
            store.destroy()


class TestStoreOnRedis(OnServers):
    @pytest.fixture
    def urls(self, redis_server: Server) -> tuple[str, ...]:
        return (redis_server.url,)


class TestStoreOnALocalSocket(OnServers):
    @pytest.fixture
    def urls(self, redis_server: Server) -> tuple[str, ...]:
        return (redis_server.unix,)


class TestStoreOnValkey(OnServers):
    @pytest.fixture
    def urls(self, valkey_server: Server) -> tuple[str, ...]:
        return (valkey_server.url,)


class TestStoreWithTLSAndPassword(OnServers):
    @pytest.fixture
    def urls(self, secure_redis_server: Server) -> tuple[str, ...]:
        return (secure_redis_server.url,)


class TestStoreOnTwoServers(OnServers):
    @pytest.fixture
    def urls(self, redis_server: Server, valkey_server: Server) -> tuple[str, ...]:
        return (redis_server.url, valkey_server.url)


class TestStoreOnACluster(OnServers):
    @pytest.fixture
    def urls(self, redis_cluster: Cluster) -> tuple[str, ...]:
        return (redis_cluster.url,)


class TestStoreOnAClusterAndAServer(OnServers):
    @pytest.fixture
    def urls(self, redis_cluster: Cluster, valkey_server: Server) -> tuple[str, ...]:
        return (redis_cluster.url, valkey_server.url)


class RedisBus:
    """Hub and links of one job at a server."""

    def __init__(self, url: str, job: str) -> None:
        self._url, self._job = url, job
        self.hub = RedisHub(url, job, _EXPIRY, _PATIENCE)
        self._links: list[RedisLink] = []

    def link(self, worker: int, generation: int) -> Link:
        self._links.append(RedisLink(self._url, self._job, worker, generation, _PATIENCE))
        return self._links[-1]

    def send_raw(self, link: Link, data: bytes) -> None:
        assert isinstance(link, RedisLink)
        link._add(data)

    def close(self) -> None:
        for link in self._links:
            link.close()
        self.hub.destroy()


class OnAServer(BusContract):
    @pytest.fixture
    def bus(self, url: str, job: str) -> Iterator[Bus]:
        bus = RedisBus(url, job)
        yield bus
        bus.close()


class TestBusOnRedis(OnAServer):
    @pytest.fixture
    def url(self, redis_server: Server) -> str:
        return redis_server.url


class TestBusOnALocalSocket(OnAServer):
    @pytest.fixture
    def url(self, redis_server: Server) -> str:
        return redis_server.unix


class TestBusOnValkey(OnAServer):
    @pytest.fixture
    def url(self, valkey_server: Server) -> str:
        return valkey_server.url


class TestBusWithTLSAndPassword(OnAServer):
    @pytest.fixture
    def url(self, secure_redis_server: Server) -> str:
        return secure_redis_server.url


class TestBusOnACluster(OnAServer):
    @pytest.fixture(params=[0, 1, 2])
    def url(self, redis_cluster: Cluster, request: pytest.FixtureRequest) -> str:
        return redis_cluster.nodes[request.param].url
