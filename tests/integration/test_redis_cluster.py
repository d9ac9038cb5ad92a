"""Jobs over a cluster of Redis servers, whose slots may move and whose nodes may go."""

from __future__ import annotations

from pathlib import Path

import pytest
from integration.jobs import job
from redis.crc import key_slot
from servers.redis import Cluster, clustered

from mlless.channels.redis_bus import _sign
from mlless.channels.redis_client import Client
from mlless.channels.redis_health import inspect
from mlless.channels.redis_routing import Router
from mlless.channels.redis_store import RedisStore, clear
from mlless.data.dataset import Dataset
from mlless.deployment import Deployment
from mlless.driver import run_job
from mlless.errors import ChannelError
from mlless.records import StepRecord


def names(cluster: Cluster) -> list[set[bytes]]:
    """Return the names of all keys, node by node."""
    return [set(node.client().keys()) for node in cluster.nodes]


def model_of(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


def test_a_job_is_the_same_bits_as_on_one_machine_and_leaves_nothing(
    ratings: Dataset, tmp_path: Path, redis_cluster: Cluster
) -> None:
    spec, seen = job(ratings, workers=3, epochs=2), []

    def listen(record: StepRecord) -> None:
        seen.append(names(redis_cluster))

    deployment = Deployment(store=redis_cluster.url)
    run_job(spec, ratings, tmp_path / "cluster", listen=listen, deployment=deployment)
    run_job(spec, ratings, tmp_path / "here")
    assert model_of(tmp_path / "cluster") == model_of(tmp_path / "here")
    assert any(all(nodes) for nodes in seen)  # updates were on every node
    assert names(redis_cluster) == [set(), set(), set()]


def test_slots_move_while_a_job_runs(ratings: Dataset, tmp_path: Path, redis_binary: str) -> None:
    spec, moved = job(ratings, workers=3, epochs=2), set()
    with clustered(redis_binary) as cluster:

        def listen(record: StepRecord) -> None:
            if record.step in (3, 6, 9):
                keys = [key for node in names(cluster) for key in node]
                job_name = keys[0].decode().split("|")[0].split(":")[0]
                for slot in {key_slot(_sign(job_name).encode()), *(key_slot(key) for key in keys[:8])}:
                    cluster.move(slot)
                    moved.add(slot)

        deployment = Deployment(store=cluster.url)
        run_job(spec, ratings, tmp_path / "moving", listen=listen, deployment=deployment)
        assert len(moved) > 8
        assert names(cluster) == [set(), set(), set()]
    run_job(spec, ratings, tmp_path / "still")
    assert model_of(tmp_path / "moving") == model_of(tmp_path / "still")


def test_keys_of_a_slot_that_is_moving_are_found_on_both_sides(redis_binary: str) -> None:
    with clustered(redis_binary, 2) as cluster:
        store = RedisStore((cluster.url,), "mlless-j", 600.0, 5.0)
        keys = [f"{{tag}}{n}" for n in range(20)]
        store.put_all({key: key.encode() for key in keys})
        slot = key_slot(b"mlless-j:{tag}0")
        ids = [node.client().execute_command("CLUSTER", "MYID").decode() for node in cluster.nodes]
        old = next(n for n, node in enumerate(cluster.nodes) if node.client().keys())
        source, target = cluster.nodes[old], cluster.nodes[1 - old]
        target.client().execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[old])
        source.client().execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1 - old])
        for key in source.client().execute_command("CLUSTER", "GETKEYSINSLOT", slot, 10):
            source.client().execute_command("MIGRATE", "127.0.0.1", target.port, key, 0, 5000)
        assert [len(node.client().keys()) for node in cluster.nodes] == [10, 10]
        assert store.get(keys) == [key.encode() for key in keys]
        store.put_all(dict.fromkeys(keys, b"new"))
        assert store.get(keys) == [b"new"] * 20
        store.destroy()
        assert names(cluster) == [set(), set()]


def test_a_node_that_is_gone_is_told_after_the_patience(redis_binary: str) -> None:
    with clustered(redis_binary) as cluster:
        store = RedisStore((cluster.url,), "mlless-j", 600.0, 0.5)
        keys = [str(n) for n in range(30)]
        store.put_all(dict.fromkeys(keys, b"x"))
        cluster.nodes[2].stop()
        with pytest.raises(ChannelError, match=f"127.0.0.1:{cluster.nodes[2].port}: the server cannot be"):
            store.get(keys)
        store.destroy()  # as far as it goes
        assert names(Cluster(cluster.nodes[:2])) == [set(), set()]


def test_what_a_lost_job_has_left_is_cleared_on_all_nodes(redis_cluster: Cluster) -> None:
    store = RedisStore((redis_cluster.url,), "mlless-left", 600.0, 5.0)
    store.put_all({str(n): b"x" for n in range(30)})
    assert clear(redis_cluster.nodes[1].url, "mlless-left") == 30
    assert names(redis_cluster) == [set(), set(), set()]


def test_how_a_cluster_is_is_told_of_all_its_nodes(redis_cluster: Cluster) -> None:
    whole = inspect(redis_cluster.url)
    assert whole is not None
    alone = redis_cluster.nodes[0].client().info("memory")
    assert whole.used > 2 * alone["used_memory"]
    assert not whole.evicts
    last = redis_cluster.nodes[2].client()
    last.config_set("maxmemory", 1 << 30)
    last.config_set("maxmemory-policy", "allkeys-lru")
    try:
        whole = inspect(redis_cluster.url)
        assert whole is not None
        assert whole.policy == "allkeys-lru"
        assert whole.evicts
    finally:
        last.config_set("maxmemory-policy", "noeviction")
        last.config_set("maxmemory", 0)


def test_a_single_server_is_asked_nothing_more(own_redis_server) -> None:
    router = Router(own_redis_server.url, 1.0)
    router.calls([("SET", "a", 1), ("MGET", "a", "b"), ("UNLINK", "a", "b")])
    commands = own_redis_server.client().info("commandstats")
    assert set(commands) <= {
        f"cmdstat_{name}" for name in ("ping", "set", "mget", "unlink", "info", "hello", "client|setinfo")
    }
    assert [type(node) for node in router.nodes()] == [Client]
    router.close()
