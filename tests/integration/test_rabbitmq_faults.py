"""What the RabbitMQ bus does when connections drop, someone dies, or the broker does not want it."""

from __future__ import annotations

import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from integration.jobs import eventually, job
from servers.need import free_port
from servers.proxy import Proxy
from servers.rabbitmq import READY_DEADLINE, Broker

from mlless.channels import rabbitmq_bus, rabbitmq_client
from mlless.channels.rabbitmq_bus import RabbitHub, RabbitLink
from mlless.data.dataset import Dataset
from mlless.deployment import Deployment
from mlless.driver import run_job
from mlless.errors import ChannelError, CodecError, Disconnected, UsageError
from mlless.messages import PROTOCOL, Abort, Commit, Hello, Plan
from mlless.records import StepRecord

PATIENCE = 150.0  # seconds after which a test that waits has failed; rabbitmqctl may take a minute
# At the broker, for a job of three.
MADE = ["broadcast", "supervisor", "worker-0.0", "worker-1.0", "worker-2.0"]


def hello(number: int, worker: int = 0) -> Hello:
    return Hello(worker=worker, generation=0, pid=1, protocol=PROTOCOL, version=str(number))


def commit(step: int) -> Commit:
    return Commit(step=step, published=(), plans=(Plan(step + 1, (0, 1, 2), 0, 9, 1),))


class Ends:
    """A job's hub and links; whatever is opened is closed with it."""

    def __init__(self, url: str) -> None:
        self.url, self.job, self.patience = url, f"mlless-{secrets.token_hex(6)}", 30.0
        self._links: list[RabbitLink] = []
        self._hub: RabbitHub | None = None

    def hub(self, url: str = "") -> RabbitHub:
        self._hub = RabbitHub(url or self.url, self.job, 600.0, self.patience)
        self._hub.admit([(worker, 0) for worker in range(3)])
        return self._hub

    def link(self, worker: int = 0, url: str = "", generation: int = 0) -> RabbitLink:
        self._links.append(RabbitLink(url or self.url, self.job, worker, generation, self.patience))
        return self._links[-1]

    def forget(self) -> None:
        """Remove exchange and queues, which no hub is there to do, or as someone from outside may do."""
        queues = [f"{self.job}.{name}" for name in MADE[1:]]
        rabbitmq_client.delete(self.url, f"{self.job}.{MADE[0]}", queues)

    def close(self) -> None:
        for link in self._links:
            link.close()
        if self._hub is not None:
            self._hub.destroy()


@pytest.fixture
def proxy(broker: Broker) -> Iterator[Proxy]:
    proxy = Proxy(broker.port)
    yield proxy
    proxy.close()


@pytest.fixture
def ends(broker: Broker, proxy: Proxy) -> Iterator[Ends]:
    ends = Ends(broker.url)
    yield ends
    ends.close()


def url_of(proxy: Proxy) -> str:
    return f"amqp://127.0.0.1:{proxy.port}"


def streams(hub: RabbitHub, link: RabbitLink, disturb: Callable[[], None], every: int) -> None:
    """Send 200 messages either way, disturbed now and then; fail unless each arrives once and in order."""
    count = 200

    def work() -> None:
        for number in range(count):
            link.send(hello(number))
            if number % 2:
                assert [link.receive(PATIENCE) for _ in range(2)] == [commit(number - 1), commit(number)]

    with ThreadPoolExecutor(1) as worker:
        working = worker.submit(work)
        for number in range(count):
            if number % every == every // 2:
                disturb()
            hub.broadcast(commit(number), [(0, 0)])
            assert hub.receive(PATIENCE) == hello(number)
        working.result(PATIENCE)
    assert hub.receive(0.0) is None


@pytest.mark.parametrize("end", ["hub", "link"])
def test_cut_connections_lose_and_double_nothing(ends: Ends, proxy: Proxy, end: str) -> None:
    hub = ends.hub(url_of(proxy) if end == "hub" else "")
    link = ends.link(url=url_of(proxy) if end == "link" else "")
    first = proxy.connections
    streams(hub, link, proxy.cut, every=40)
    assert proxy.connections >= first + 5


def test_connections_closed_by_an_operator_lose_and_double_nothing(ends: Ends, broker: Broker) -> None:
    def close_all() -> None:
        broker.control("close_all_connections", "maintenance")

    streams(ends.hub(), ends.link(), close_all, every=200)


def test_what_comes_twice_is_heard_once(ends: Ends) -> None:
    hub, link = ends.hub(), ends.link()
    link.send(hello(0))
    link._sent -= 1  # as after a lost connection, whose confirmation did not come
    link.send(hello(0))
    link.send(hello(1))
    assert [hub.receive(PATIENCE), hub.receive(PATIENCE)] == [hello(0), hello(1)]
    hub.broadcast(commit(0), [(0, 0)])
    hub._sent -= 1
    hub.broadcast(commit(0), [(0, 0)])
    hub.broadcast(commit(1), [(0, 0)])
    assert [link.receive(PATIENCE), link.receive(PATIENCE)] == [commit(0), commit(1)]


def test_a_step_may_outlast_the_broker_s_time_outs(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both links are busy and look at no message; only the one that does not acknowledge is thrown out."""
    monkeypatch.setattr(rabbitmq_client, "HEARTBEAT", 5)  # the broker bears up to twice that in silence
    hub, busy, rude = ends.hub(), ends.link(0), ends.link(1)
    rude._connection._acknowledge = lambda: None  # type: ignore[method-assign]
    opened = busy._connection._connection
    hub.broadcast(commit(0), [(0, 0), (1, 0)])
    eventually(lambda: rude._connection._failure is not None, "the broker loses patience", within=PATIENCE)
    assert rude.receive(PATIENCE) == commit(0)
    with pytest.raises(ChannelError, match="the broker refuses: found PRECONDITION_FAILED - delivery ack"):
        rude.receive(PATIENCE)
    with pytest.raises(ChannelError, match="PRECONDITION_FAILED"):
        rude.send(hello(0, worker=1))
    assert busy.receive(PATIENCE) == commit(0)
    busy.send(hello(0))
    assert hub.receive(PATIENCE) == hello(0)
    assert busy._connection._connection is opened


def test_workers_of_a_killed_supervisor_notice(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rabbitmq_bus, "_SLICE", 0.1)
    code = (
        "from mlless.channels.rabbitmq_bus import RabbitHub\n"
        f"hub = RabbitHub({ends.url!r}, {ends.job!r}, 600.0, 30.0)\n"
        "hub.admit([(0, 0)])\n"
        "print('open', flush=True)\n"
        "while True:\n"
        "    hub.receive(600.0)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
            link = ends.link()
            link._longest_absence = 1.0
            link.send(hello(0))
            with pytest.raises(ChannelError, match="no message from the supervisor"):
                link.receive(3.0)  # longer than a supervisor may be away
        finally:
            process.send_signal(signal.SIGKILL)
    with pytest.raises(Disconnected, match="the supervisor has been gone"):
        link.receive(PATIENCE)
    ends.forget()


def test_a_link_notices_that_a_message_is_lost(ends: Ends) -> None:
    hub, link = ends.hub(), ends.link()
    hub.broadcast(commit(0), [(0, 0)])
    hub.broadcast(commit(1), [(1, 0)])
    hub._sent += 1
    hub.broadcast(commit(3), [(1, 0)])
    assert link.receive(PATIENCE) == commit(0)
    with pytest.raises(ChannelError, match="of the supervisor are lost: expected number 3, found 4"):
        link.receive(PATIENCE)


def test_a_queue_that_nobody_reads_keeps_the_last_messages(
    ends: Ends, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who comes later has missed what was sent before, which is no loss."""
    monkeypatch.setattr(rabbitmq_client, "_KEPT", 3)
    hub = ends.hub()
    for number in range(10):
        hub.broadcast(commit(number), [(0, 0)])
    link = ends.link()
    assert [link.receive(PATIENCE) for _ in range(3)] == [commit(7), commit(8), commit(9)]


def test_nothing_is_left_at_the_broker(ends: Ends, broker: Broker) -> None:
    hub, link = ends.hub(), ends.link()
    assert broker.names(ends.job) == [f"{ends.job}.{name}" for name in MADE]
    hub.broadcast(commit(0), [(0, 0)])
    hub.destroy()
    hub.destroy()
    assert broker.names(ends.job) == []
    assert link.receive(PATIENCE) == commit(0)
    with pytest.raises(Disconnected):
        link.receive(PATIENCE)
    with pytest.raises(Disconnected, match="the supervisor is not there"):
        ends.link(1)


def test_a_broker_forgets_a_job_that_died(ends: Ends, broker: Broker) -> None:
    hub = RabbitHub(ends.url, ends.job, 1.0, 30.0)
    hub.admit([(0, 0), (0, 1)])
    hub._connection.close()
    eventually(lambda: broker.names(ends.job) == [], "queues expire", within=PATIENCE)


LOST = "the broker has lost the job's messages"


def restart(ends: Ends, broker: Broker) -> None:
    """Restart the broker, which keeps durable queues, and neither the exchange nor messages."""
    broker.control("eval", "rabbit:stop(), rabbit:start().")


def remove(ends: Ends, broker: Broker) -> None:
    """Do as someone who removes exchange and queues."""
    ends.forget()


@pytest.mark.parametrize("harm", [restart, remove])
@pytest.mark.parametrize("first", ["hub", "link"])
def test_a_hub_goes_on_without_what_was_lost_and_links_do_not(
    ends: Ends, broker: Broker, harm: Callable[[Ends, Broker], None], first: str
) -> None:
    """Whoever notices first. A function that is launched afterwards joins."""
    ends.patience = READY_DEADLINE
    hub, link, idle = ends.hub(), ends.link(), ends.link(1)
    hub.broadcast(commit(0), [(2, 0)])
    told = r"worker-0\.0: what the job had made is gone from the broker"
    with pytest.warns(RuntimeWarning, match=LOST):  # noqa: PT031
        harm(ends, broker)
        if first == "link":
            with pytest.raises(Disconnected, match=told):
                link.receive(PATIENCE)
        hub.admit([(0, 1)])
    if first == "hub":
        with pytest.raises(Disconnected, match=told):
            link.receive(PATIENCE)
    with pytest.raises(Disconnected):  # noqa: PT012, at the latest when it listens
        idle.send(hello(0, worker=1))
        idle.receive(PATIENCE)
    new = ends.link(0, generation=1)
    hub.broadcast(commit(1), [(0, 0), (0, 1)])
    assert new.receive(PATIENCE) == commit(1)
    new.send(Hello(0, 1, 1, PROTOCOL, "new"))
    heard = [hub.receive(PATIENCE)] if harm is restart else [hub.receive(PATIENCE) for _ in range(2)]
    assert heard[-1] == Hello(0, 1, 1, PROTOCOL, "new")
    hub.destroy()
    assert broker.names(ends.job) == []


def test_a_hub_that_waits_listens_to_its_queue_made_anew(ends: Ends, broker: Broker) -> None:
    import pika

    hub, queue = ends.hub(), f"{ends.job}.supervisor"
    with ThreadPoolExecutor(1) as waiting, pytest.warns(RuntimeWarning, match=LOST):  # noqa: PT031
        hearing = waiting.submit(hub.receive, PATIENCE)
        ends.forget()
        eventually(lambda: queue in broker.names(ends.job), "the hub has a queue again", within=PATIENCE)
        with pika.BlockingConnection(pika.URLParameters(ends.url)) as connection:
            connection.channel().basic_publish("", queue, b"\x80")
        with pytest.raises(CodecError, match="message of a stranger"):
            hearing.result(PATIENCE)


def test_a_broker_that_stands_still_for_a_while_loses_and_doubles_nothing(ends: Ends, broker: Broker) -> None:
    hub, link = ends.hub(), ends.link()
    hub.broadcast(commit(0), [(0, 0)])
    link.send(hello(0))
    pid = int(broker.control("eval", "os:getpid().").strip('" \n'))
    with ThreadPoolExecutor(2) as threads:
        os.kill(pid, signal.SIGSTOP)
        try:
            acting = [
                threads.submit(link.send, hello(1)),
                threads.submit(hub.broadcast, commit(1), [(0, 0)]),
            ]
            assert not any(one.done() for one in acting)
        finally:
            os.kill(pid, signal.SIGCONT)
        for one in acting:
            one.result(PATIENCE)
    assert [link.receive(PATIENCE) for _ in range(2)] == [commit(0), commit(1)]
    assert [hub.receive(PATIENCE) for _ in range(2)] == [hello(0), hello(1)]
    assert hub.receive(0.0) is None


def test_a_broker_out_of_reach_for_a_while_loses_and_doubles_nothing(
    ends: Ends, proxy: Proxy, broker: Broker
) -> None:
    """By whoever sends or waits meanwhile."""
    hub, link, other = ends.hub(url_of(proxy)), ends.link(url=url_of(proxy)), ends.link(1, url_of(proxy))
    hub.broadcast(commit(0), [(0, 0), (1, 0)])
    link.send(hello(0))
    connections = [end._connection for end in (hub, link, other)]
    with ThreadPoolExecutor(3) as threads:
        assert other.receive(PATIENCE) == commit(0)
        waiting = threads.submit(other.receive, PATIENCE)
        proxy.close()
        sending = threads.submit(link.send, hello(1))
        broadcasting = threads.submit(hub.broadcast, commit(1), [(0, 0), (1, 0)])
        eventually(lambda: not any(one._channel for one in connections), "it is noticed", within=PATIENCE)
        back = Proxy(broker.port, proxy.port)
        for one in (sending, broadcasting):
            one.result(PATIENCE)
        assert waiting.result(PATIENCE) == commit(1)
    assert [link.receive(PATIENCE) for _ in range(2)] == [commit(0), commit(1)]
    assert [hub.receive(PATIENCE) for _ in range(2)] == [hello(0), hello(1)]
    assert hub.receive(0.0) is None
    ends.close()
    back.close()


def test_the_time_of_an_absence_does_not_count_as_silence(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read that takes a thousand seconds is one of a broker that was away."""
    hub, link = ends.hub(), ends.link()
    now, receive = 0.0, link._connection.receive

    def away(timeout: float) -> None:
        nonlocal now
        now += 1000.0
        monkeypatch.setattr(link._connection, "receive", receive)
        hub.broadcast(commit(1), [(0, 0)])

    monkeypatch.setattr(rabbitmq_bus, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(link._connection, "receive", away)
    assert link.receive(10.0) == commit(1)


def test_a_broker_that_is_gone_does_not_hold_up_the_end(
    ends: Ends, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends.patience = 10 * PATIENCE
    hub = ends.hub(url_of(proxy))
    proxy.close()
    start = time.monotonic()
    hub.destroy()
    assert time.monotonic() - start < PATIENCE
    ends.forget()


def test_a_broker_that_is_gone_is_given_up(ends: Ends, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    ends.patience = 1.0
    hub, link = ends.hub(url_of(proxy)), ends.link(url=url_of(proxy))
    proxy.close()
    message = rf"RabbitMQ at 127\.0\.0\.1:{proxy.port}: no connection with the broker"
    with pytest.raises(ChannelError, match=message):
        link.send(hello(0))
    with pytest.raises(ChannelError, match=message):
        hub.broadcast(commit(0), [(0, 0)])
    with pytest.raises(ChannelError, match=message):
        hub.receive(0.0)  # at once: it has been given up
    hub.destroy()
    hub.destroy()
    link.close()
    ends.forget()


def test_what_is_no_message_is_an_error_every_time(ends: Ends) -> None:
    """Random bytes, and real messages with a byte changed, in both directions; the bus goes on."""
    hub, link = ends.hub(), ends.link()
    generator = random.Random(7)
    sealed = rabbitmq_bus._sealed(rabbitmq_bus._ToHub((0, 0), 1, b"\x93\xa5hello"))
    for number in range(1, 151):
        data = bytearray(sealed) if number % 2 else bytearray(generator.randbytes(generator.randrange(200)))
        if data:
            data[generator.randrange(len(data))] = generator.randrange(256)
        publish = partial(link._connection.publish, "")
        publish(f"{ends.job}.supervisor", bytes(data))
        publish(f"{ends.job}.worker-0.0", bytes(data))
        with pytest.raises(CodecError):
            hub.receive(PATIENCE)
        with pytest.raises(CodecError):
            link.receive(PATIENCE)
    link.send(hello(1))
    assert hub.receive(PATIENCE) == hello(1)
    hub.broadcast(commit(1), [(0, 0)])
    assert link.receive(PATIENCE) == commit(1)


def test_odd_properties_of_a_message_do_no_harm(ends: Ends) -> None:
    import pika

    hub, link = ends.hub(), ends.link()
    binary = "application/x-python-pickle"
    odd = [
        pika.BasicProperties(headers={"a": [1, None, {"b": True}], "c": b"\xff"}, delivery_mode=2),
        pika.BasicProperties(content_type=binary, timestamp=2**63, message_id="\u00e9" * 100),
        pika.BasicProperties(expiration="100000", reply_to="x", correlation_id="y", type="z", app_id="w"),
    ]
    connection = pika.BlockingConnection(pika.URLParameters(ends.url))
    for properties in odd:
        connection.channel().basic_publish("", f"{ends.job}.supervisor", b"\x80", properties)
        with pytest.raises(CodecError, match="message of a stranger: not a message of this bus"):
            hub.receive(PATIENCE)
    connection.close()
    link.send(hello(1))
    assert hub.receive(PATIENCE) == hello(1)


def test_a_message_beyond_the_bound_is_refused_before_it_is_sent(ends: Ends) -> None:
    hub, link = ends.hub(), ends.link()
    hub.broadcast(commit(0), [(0, 0)])
    with pytest.raises(CodecError, match="message too long: expected at most 16,777,216 bytes"):
        link._send(bytes(17 << 20))
    with pytest.raises(CodecError, match="message too long"):
        hub.broadcast(Abort("x" * (17 << 20)), [(0, 0)])
    link.send(hello(1))
    assert hub.receive(PATIENCE) == hello(1)
    hub.broadcast(commit(1), [(0, 0)])
    assert [link.receive(PATIENCE) for _ in range(2)] == [commit(0), commit(1)]


def test_a_secure_connection(broker: Broker, ends: Ends) -> None:
    url = f"{broker.tls_url}?cacertfile={broker.certificate}"
    hub, link = ends.hub(url), ends.link(url=f"{broker.tls_url}?verify=verify_none")
    link.send(hello(1))
    assert hub.receive(PATIENCE) == hello(1)


def test_what_cannot_work_is_told_in_seconds(broker: Broker) -> None:
    unused = free_port()
    plain, secure = broker.url.removeprefix("amqp://"), broker.tls_url.removeprefix("amqps://")
    for url, told in {
        f"amqp://guest:s3cret@127.0.0.1:{unused}": f"at 127.0.0.1:{unused}: no connection.*Is it running",
        f"amqp://guest:s3cret@{plain}": "does not let user 'guest' in. Check user and password",
        f"amqp://{plain}/s3cret?heartbeat=1": "no such option of amqp://: heartbeat",
        f"amqp://{plain}/nowhere": "no virtual host 'nowhere' for user 'guest'",
        f"amqps://{secure}": "no secure connection.*certificate verify failed.*cacertfile=FILE",
        f"amqps://{plain}?verify=verify_none": "no secure connection.*Is this its port for TLS",
        f"amqps://{secure}?verify=maybe": "no such verify: expected verify_peer or verify_none, found maybe",
        f"amqps://{secure}?cacertfile=/nowhere": "/nowhere: cannot use the certificates of the bus",
        "amqp://guest:s3cret@": "not the URL of a RabbitMQ",
        "amqp://guest:s3cret@127.0.0.1:99999": "not the URL of a RabbitMQ",
        "amqp://guest:s3cret/x@127.0.0.1": "not the URL of a RabbitMQ.*write %2F",
    }.items():
        with pytest.raises((ChannelError, UsageError), match=told) as caught:
            RabbitHub(url, "mlless-x", 600.0, 30.0)
        assert "s3cret" not in str(caught.value)


def test_a_broker_without_a_word_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rabbitmq_client, "_CONNECT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(ChannelError, match=f"127.0.0.1:{port}: no connection with the broker"):
            RabbitLink(f"amqp://127.0.0.1:{port}", "mlless-x", 0, 0, 30.0)


def test_a_user_without_permission_is_told_what_is_needed(broker: Broker) -> None:
    broker.control("add_user", "poor", "s3cret")
    broker.control("set_permissions", "poor", "^$", ".*", ".*")
    url = broker.url.replace("//", "//poor:s3cret@")
    with pytest.raises(ChannelError, match=r"found ACCESS_REFUSED.*set_permissions -p / poor"):
        RabbitHub(url, "mlless-x", 600.0, 30.0)


def test_a_missing_pika_is_told() -> None:
    code = (
        "import sys\n"
        "sys.modules['pika'] = None\n"
        "from mlless.channels.opening import open_link\n"
        "from mlless.deployment import Addresses\n"
        "open_link(Addresses('mlless-x', ('/x',), 'amqp://127.0.0.1'), 0, 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    told = "UsageError: a RabbitMQ bus needs pika. Install what is missing: pip install 'mlless[rabbitmq]'"
    assert told in done.stderr


def test_only_a_bus_of_rabbitmq_loads_pika() -> None:
    code = "import sys, mlless.launch, mlless.channels.opening; print('pika' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_job_whose_connections_are_cut_gives_the_same_model(
    ratings: Dataset, broker: Broker, proxy: Proxy, tmp_path: Path
) -> None:
    """Those of a worker, of the supervisor, and of everyone, in mid-job."""
    spec = job(ratings, workers=3, epochs=2)
    before = broker.names("mlless-")
    cuts = {8: [2], 14: [0], 20: list(range(4))}  # connections in order: hub, workers

    def cut(record: StepRecord) -> None:
        for which in cuts.get(record.step, []):
            proxy.cut(which)

    undisturbed = run_job(spec, ratings, tmp_path / "undisturbed")
    disturbed = run_job(
        spec, ratings, tmp_path / "disturbed", deployment=Deployment(bus=url_of(proxy)), listen=cut
    )
    assert proxy.connections >= 4 + 3
    assert disturbed.summary.steps == undisturbed.summary.steps > 20
    model = "model.safetensors"
    assert (disturbed.folder / model).read_bytes() == (undisturbed.folder / model).read_bytes()
    assert broker.names("mlless-") == before
