"""Where a job runs: what is refused, what is derived, and that passwords are not shown."""

from __future__ import annotations

import pytest

from mlless.deployment import EMBEDDED, PATIENCE, Addresses, Deployment, bare
from mlless.errors import UsageError, hidden

REDIS = "redis://:s3cret@one:6379/0"


def test_by_default_all_is_on_this_machine() -> None:
    local = Deployment()
    assert (local.servers, local.meeting, local.embedded) == ((EMBEDDED,), EMBEDDED, True)
    assert local.addresses("job", "/folder") == Addresses("job", ("/folder",), "/folder")


def test_the_bus_is_the_first_server_of_the_store() -> None:
    some = Deployment(store=f"{REDIS}, redis://two")
    assert some.servers == (REDIS, "redis://two")
    assert some.meeting == REDIS
    assert not some.embedded
    assert some.addresses("job", None) == Addresses("job", (REDIS, "redis://two"), REDIS, PATIENCE)


def test_store_and_bus_may_be_of_different_kinds() -> None:
    mixed = Deployment(store=REDIS, bus=EMBEDDED)
    assert mixed.embedded
    assert mixed.addresses("job", "/folder") == Addresses("job", (REDIS,), "/folder", PATIENCE)


def test_functions_know_how_long_servers_may_be_away() -> None:
    assert Deployment().addresses("job", "/folder").patience == 0.0
    assert Deployment(store=REDIS).addresses("job", None).patience == PATIENCE
    for places in ({"store": REDIS}, {"bus": "amqp://host"}, {"store": REDIS, "bus": EMBEDDED}):
        assert Deployment(**places, patience_channel=7.5).addresses("job", "/folder").patience == 7.5


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"store": "http://host"}, "not the address of a store.*redis"),
        ({"store": "amqp://host"}, "not the address of a store"),
        ({"bus": "s3://bucket"}, "not the address of a bus.*amqp"),
        ({"store": f"{EMBEDDED},{REDIS}"}, "not both"),
        ({"store": "redis://:p@ss/w@host:6379"}, r"not percent-encoded: found redis://:\*\*\*@host"),
        ({"bus": "amqp://me:half@rest/more@host"}, "not percent-encoded.*%2F"),
        ({"store": REDIS, "runtime": "lithops", "memory": 0}, "no such memory"),
        ({"runtime": "lithops"}, "the embedded store reaches no further"),
        ({"store": REDIS, "bus": EMBEDDED, "runtime": "lithops"}, "the embedded bus reaches no further"),
        ({"memory": 0}, "no such memory: expected a number from 1, found 0"),
        ({"time_limit": -1}, "no such time limit: expected a number from 1, found -1"),
        ({"patience_channel": 60.0}, "embedded channels are never away.*name a server"),
        ({"store": REDIS, "patience_channel": 0.0}, "no such patience.*seconds above 0, found 0"),
        ({"store": REDIS, "patience_channel": float("inf")}, "no such patience.*found inf"),
        ({"store": REDIS, "patience_channel": float("nan")}, "no such patience.*found nan"),
    ],
)
def test_what_cannot_work_is_refused(wrong: dict[str, object], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Deployment(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "address",
    [
        REDIS,
        "rediss://me:s3cret@host",
        "redis://me@work:s3cret@host",
        "unix://:s3cret@/path?db=1",
        "redis://host?password=s3cret&db=1",
    ],
)
def test_passwords_are_not_shown(address: str) -> None:
    for shown in (
        hidden(address),
        repr(Deployment(store=address)),
        repr(Addresses("j", (address,), address)),
    ):
        assert "s3cret" not in shown
        assert "***" in shown


def test_what_should_have_been_encoded_is_hidden_all_the_same() -> None:
    assert hidden("redis://me/too:s3@cr/et@host") == "redis://me/too:***@host"


def test_a_comma_in_a_password_is_no_end_of_an_address() -> None:
    some = Deployment(store=f"redis://me:a,s3cret@one:6379/0,{REDIS} rediss://two")
    assert some.servers == ("redis://me:a,s3cret@one:6379/0", REDIS, "rediss://two")
    assert "s3cret" not in repr(some)
    assert Deployment(store=f" {REDIS} , ").servers == (REDIS,)


@pytest.mark.parametrize(
    "store",
    [
        "redis://me:a s3cret@host:6379",
        "redis://me:a, s3cret@host:6379",
        "redis://one,two:6379",
        "redis://me:s3cret@one,two:6379",
        "redis://me:s3cret@one two:6379",
        "redis://me:s3cret@one:6379,me:s3cret@two:6379",
        "redis://m,e:s3,cret@one:6379,me:s3cret@two:6379",
        "me:s3cret@two:6379",
    ],
)
def test_what_is_refused_is_not_shown_in_parts(store: str) -> None:
    with pytest.raises(UsageError) as raised:
        Deployment(store=store)
    assert "cret" not in str(raised.value)


def test_what_is_hidden_ends_with_its_url() -> None:
    assert hidden("redis://one:6379,redis://me:s3cret@two") == "redis://one:6379,redis://me:***@two"
    assert hidden("from https://host:80/x\nto me@host") == "from https://host:80/x\nto me@host"


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("embedded", "embedded"),
        ("/dev/shm/mlless-x", "/dev/shm/mlless-x"),
        ("redis://one:6379/0", "redis://one:6379/0"),
        (REDIS, "redis://one:6379/0"),
        ("redis://user:p@one@two:6379", "redis://two:6379"),
        ("rediss://:x@one?ssl_ca_certs=/ca.crt&password=s3cret", "rediss://one?ssl_ca_certs=/ca.crt"),
        ("redis://one?Password=s3cret", "redis://one"),
        ("unix://user:s3cret@/socket?db=1", "unix:///socket?db=1"),
        ("amqp://guest:guest@host/vhost", "amqp://host/vhost"),
    ],
)
def test_addresses_without_credentials(address: str, told: str) -> None:
    assert bare(address) == told
    if address.startswith("redis"):
        job = Deployment(store=f"{address}, redis://:s3cret@last", bus=address).bare()
        assert job.servers == (told, "redis://last")
        assert job.meeting == told
