"""A real RabbitMQ broker, started by hand: its ports, node name, cookie and folders are its own."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers.need import free_port, missing

READY_DEADLINE = 120.0  # seconds; three suites at a time may start theirs on two cores
# Debian's scripts in PATH insist on the system's own user and folders; those behind them do not.
_PLACES = "/usr/lib/rabbitmq/bin"

# Stands between the test and the broker, and ends it with the test, however that comes to its own end; a
# Ctrl-C is not for it. Erlang's port mapper is started here so that it does not detach itself.
_KEEPER = """
import os, select, shutil, subprocess, sys
os.setpgid(0, 0)
script, folder = sys.argv[1:]
commands = [script], ["epmd", "-address", "127.0.0.1", "-port", os.environ["ERL_EPMD_PORT"]]
broker, mapper = processes = [subprocess.Popen(command, stdin=subprocess.DEVNULL) for command in commands]
while (running := broker.poll() is None) and not select.select([sys.stdin], [], [], 0.5)[0]:
    pass
for process in processes:
    process.kill()
    process.wait()
if running:
    shutil.rmtree(folder)
"""

_ONE_THREAD = "+S 1:1 +SDcpu 1:1 +SDio 1"

# The broker's own patience is as short as a test can stand: whoever does not acknowledge is thrown out.
_CONFIG = """
listeners.tcp.default = 127.0.0.1:{port}
consumer_timeout = {consumer_timeout}
loopback_users = none
log.console = false
"""
_TLS_CONFIG = """
listeners.ssl.default = 127.0.0.1:{tls_port}
ssl_options.cacertfile = {certificate}
ssl_options.certfile = {certificate}
ssl_options.keyfile = {key}
ssl_options.verify = verify_none
"""


class Broker:
    """A broker of its own; times in milliseconds."""

    def __init__(self, *, consumer_timeout: int = 10_000, channel_tick_interval: int = 1_000) -> None:
        script = shutil.which("rabbitmq-server", path=f"{_PLACES}{os.pathsep}{os.environ['PATH']}")
        if script is None or shutil.which("epmd") is None:
            missing("RabbitMQ", "apt-get install rabbitmq-server")
        self._scripts = Path(script).parent
        self.folder = Path(tempfile.mkdtemp(prefix="rabbit-", dir="/tmp"))
        self.port, self.tls_port = free_port(), free_port()
        self.certificate = self._certify()
        self._configure(consumer_timeout, channel_tick_interval)
        with (self.folder / "output").open("wb") as output:
            self._keeper = subprocess.Popen(
                [sys.executable, "-c", _KEEPER, script, self.folder],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment,
            )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str:
        return f"amqp://127.0.0.1:{self.port}"

    @property
    def tls_url(self) -> str:
        return f"amqps://localhost:{self.tls_port}"

    def _certify(self) -> Path:
        certificate = self.folder / "certificate.pem"
        self._key = self.folder / "key.pem"
        if shutil.which("openssl") is None:
            missing("openssl", "apt-get install openssl")
        subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        files = ["-keyout", self._key, "-out", certificate]
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject, *files],
            check=True,
            capture_output=True,
        )
        return certificate

    def _configure(self, consumer_timeout: int, channel_tick_interval: int) -> None:
        folder = self.folder
        config = (_CONFIG + _TLS_CONFIG).format(
            port=self.port,
            consumer_timeout=consumer_timeout,
            tls_port=self.tls_port,
            certificate=self.certificate,
            key=self._key,
        )
        (folder / "rabbitmq.conf").write_text(config)
        # The new style has no word for it.
        (folder / "advanced.config").write_text(
            f"[{{rabbit, [{{channel_tick_interval, {channel_tick_interval}}}]}}].\n"
        )
        (folder / "plugins").write_text("[].\n")
        (folder / "home").mkdir()
        cookie = folder / "home" / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)
        self._environment = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("RABBITMQ_", "ERL_"))
            },
            "HOME": str(folder / "home"),
            "ERL_EPMD_PORT": str(free_port()),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"{folder.name.replace('_', '-')}@localhost",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_FEATURE_FLAGS_FILE": str(folder / "flags"),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            # One thread that runs: where cores are scarce, handing work to and fro between more takes long.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": _ONE_THREAD,
            "RABBITMQ_CTL_ERL_ARGS": _ONE_THREAD,
            "RUNNING_UNDER_SYSTEMD": "true",  # the script then becomes the broker, and does not wait for it
            "RABBITMQ_PID_FILE": str(folder / "pid"),
        }

    def _wait(self) -> None:
        deadline = time.monotonic() + READY_DEADLINE
        while not (_answers(self.port) and _answers(self.tls_port)):
            if self._keeper.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"no broker within {READY_DEADLINE:g} s: {(self.folder / 'output').read_text()}")
            time.sleep(0.1)

    def control(self, *command: str) -> str:
        """Return what rabbitmqctl says to a command."""
        done = subprocess.run(
            [self._scripts / "rabbitmqctl", "-n", self._environment["RABBITMQ_NODENAME"], *command],
            env={
                **self._environment,
                "RABBITMQ_CTL_DIST_PORT_MIN": str(port := free_port()),
                "RABBITMQ_CTL_DIST_PORT_MAX": str(port),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=READY_DEADLINE,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def names(self, job: str) -> list[str]:
        """Return the queues and exchanges of a job."""
        listed = re.findall(r'<<"(.*?)">>', self.control("eval", _LIST))
        assert "amq.fanout" in listed
        return sorted(name for name in listed if name.startswith(job))

    def stop(self) -> None:
        """Kill it: nothing of its state is wanted."""
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        self._keeper.wait(READY_DEADLINE)


# Both at once, as each start of rabbitmqctl takes a second or more.
_LIST = (
    "[Name || {resource, _, _, Name} <- "
    "rabbit_amqqueue:list_names() ++ [element(2, Exchange) || Exchange <- rabbit_exchange:list()]]."
)


def _answers(port: int) -> bool:
    """Return whether someone listens at the port, which a broker does last of all when it starts."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """A RabbitMQ broker for the whole session."""
    broker = Broker()
    yield broker
    broker.stop()
