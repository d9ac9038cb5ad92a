"""``mlless doctor``: a deployment that works, and many that do not."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time

import pytest
from servers.need import free_port
from servers.redis import QUOTED, running

USAGE, DATASET, CHANNEL = 2, 4, 5


def _findings(done):
    """Return outcome and text of each finding by its check, and the cures."""
    told = json.loads(done.stdout)
    return {one["check"]: one for one in told["findings"]}


@pytest.fixture
def channels(channels, monkeypatch):
    """The folder in which embedded channels make theirs."""
    monkeypatch.setenv("MLLESS_CHANNEL_DIR", str(channels))
    return channels


def test_one_machine_is_well(mlless, ratings, channels, tmp_path):
    done = mlless("doctor", ratings.dataset, "--workers", 2)
    lines = done.stdout.splitlines()
    assert [line[:13].strip() for line in lines] == [
        f"✓ {check}"
        for check in (
            "store",
            "bus",
            "data set",
            "functions",
            "versions",
            "clocks",
            "from there",
            "data there",
        )
    ]
    assert "2 functions at once" in done.stdout
    assert list(channels.iterdir()) == []
    declared = lines[6].split("to declare it: ")[1].split()
    mlless("train", ratings.dataset, "--workers", 2, "--epochs", 1, *declared, "--out", tmp_path / "run")
    job = json.loads((tmp_path / "run" / "summary.json").read_text())["job"]
    assert job["network"]["rate"] == 1e6 * float(declared[1])
    assert job["network"]["latency"] == float(declared[3])


def test_the_numbers_are_there_for_scripts(mlless, ratings, channels):
    done = mlless("doctor", ratings.dataset, "--workers", 2, "--json")
    assert json.loads(done.stdout)["ok"] is True
    found = _findings(done)
    assert found["store"]["facts"]["latency"] > 0
    functions = found["functions"]["facts"]["functions"]
    assert len(functions) == 2
    assert all(one["dataset"]["get"] > 0 and one["store"]["put"] > 0 for one in functions)
    assert abs(found["clocks"]["facts"]["skew"]) < 1 + found["clocks"]["facts"]["doubt"]


def test_processes_have_the_limits_that_are_asked_for(mlless, channels):
    limits = "--workers", 1, "--time-limit", 60, "--memory"
    told = mlless("doctor", *limits, 512).stdout
    assert "each with 512 MB of memory, ended after 1 min 00 s;" in told
    told = mlless("doctor", *limits, 1, code=USAGE).stdout
    assert "✗ functions  --memory is less than a worker takes with nothing read yet" in told
    assert "Raise --memory" in told


def test_a_data_set_that_is_not_there(mlless, tmp_path, channels):
    found = _findings(mlless("doctor", tmp_path / "none", "--workers", 1, "--json", code=DATASET))
    assert found["data set"]["outcome"] == "failed"
    assert "no such folder" in found["data set"]["text"]
    assert found["data set"]["cure"] == "make one with mlless partition SOURCE DEST"
    assert found["functions"]["outcome"] == "ok"


def test_a_damaged_mini_batch(mlless, ratings, tmp_path, channels):
    shutil.copytree(ratings.dataset, tmp_path / "data")
    (first,) = (tmp_path / "data" / "train").glob("000000-*")
    first.write_bytes(b"nonsense")
    done = mlless("doctor", tmp_path / "data", "--workers", 1, code=DATASET)
    assert "✗ data set" in done.stdout
    assert "damaged file" in done.stdout


def test_a_place_for_channels_that_is_not_there(mlless, tmp_path, monkeypatch):
    monkeypatch.setenv("MLLESS_CHANNEL_DIR", str(tmp_path / "none"))
    done = mlless("doctor", code=5)
    assert "✗ store" in done.stdout
    assert "Set MLLESS_CHANNEL_DIR to a folder you can write to" in done.stdout
    assert "! functions" in done.stdout


def test_redis_is_well_and_nothing_is_left_in_it(mlless, ratings, redis_binary):
    with running(redis_binary) as server, server.client() as client:
        client.set("theirs", "untouched")
        done = mlless("doctor", ratings.dataset, "--store", server.url, "--workers", 3, "--json")
        assert client.keys() == [b"theirs"]
        assert client.get("theirs") == b"untouched"
    found = _findings(done)
    assert all(one["outcome"] == "ok" for one in found.values())
    assert found["server"]["facts"]["release"].startswith("Redis ")
    assert found["bus"]["facts"]["address"] == server.url
    assert len(found["functions"]["facts"]["functions"]) == 3


def test_several_servers_a_broker_and_a_password(
    mlless, redis_server, secure_redis_server, valkey_server, broker
):
    stores = f"{redis_server.url},{secure_redis_server.url},{valkey_server.url}"
    done = mlless("doctor", "--store", stores, "--bus", broker.url, "--workers", 2)
    lines = done.stdout.splitlines()
    assert [line[2:13].strip() for line in lines[:7]] == ["server", "store"] * 3 + ["bus"]
    assert "Valkey" in lines[4]
    assert "rediss://:***@127.0.0.1" in lines[2]
    assert "amqp://" in lines[6]
    assert all(line.startswith("✓") for line in lines)
    assert QUOTED not in done.stdout
    assert broker.names("mlless-doctor") == []


def test_a_server_that_evicts_is_refused_in_the_words_of_a_job(mlless, ratings, tmp_path, redis_binary):
    limits = "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"
    with running(redis_binary, *limits) as server:
        done = mlless("doctor", "--store", server.url, "--workers", 1, code=USAGE)
        job = mlless("train", ratings.dataset, "--out", tmp_path / "run", "--store", server.url, code=USAGE)
    told, *others = done.stdout.splitlines()
    assert told.startswith("✗ server")
    assert "allkeys-lru" in told
    for words in ("when it is full it drops keys", "CONFIG SET maxmemory-policy noeviction"):
        assert words in told
        assert words in job.stderr
    assert [line[:13].strip() for line in others] == ["✓ store", "! functions"]


def test_a_server_that_is_full(mlless, redis_binary):
    with running(redis_binary, "--maxmemory", "3mb") as server:
        lines = mlless("doctor", "--store", server.url, "--workers", 1, code=CHANNEL).stdout.splitlines()
    assert [line[:13].strip() for line in lines] == ["✓ server", "✗ store", "! functions"]
    assert "out of memory" in lines[1]
    assert "Raise its maxmemory" in lines[1]


@pytest.mark.parametrize("option", ["--store", "--bus"])
def test_a_wrong_password(mlless, secure_redis_server, option):
    url = secure_redis_server.url.replace(QUOTED, "wr0ng")
    done = mlless("doctor", option, url, code=CHANNEL)
    [told] = [line for line in done.stdout.splitlines() if line.startswith("✗")]
    assert told.startswith(f"✗ {option[2:]}")
    assert "does not let us in" in told
    assert "Check user and password" in told
    assert "wr0ng" not in done.stdout + done.stderr


@pytest.mark.parametrize(("option", "scheme"), [("--store", "redis"), ("--bus", "redis"), ("--bus", "amqp")])
def test_a_host_that_is_not_there(mlless, option, scheme):
    done = mlless("doctor", option, f"{scheme}://127.0.0.1:{free_port()}", code=CHANNEL)
    [told] = [line for line in done.stdout.splitlines() if line.startswith("✗")]
    assert told.startswith(f"✗ {option[2:]}")
    assert "Connection refused" in told.replace("ConnectionRefused", "Connection refused")
    assert "! functions" in done.stdout


def test_a_server_that_may_not_be_asked(mlless, redis_binary):
    with running(redis_binary) as server, server.client() as client:
        client.acl_setuser(
            "me", enabled=True, passwords=["+pw"], keys=["*"], categories=["+@all"], commands=["-info"]
        )
        url = server.url.replace("//", "//me:pw@")
        lines = mlless("doctor", "--store", url, "--workers", 1).stdout.splitlines()
    assert lines[0].startswith("! server")
    assert "noeviction" in lines[0]
    assert lines[1].startswith("✓ store")


def test_a_user_that_may_not_delete(mlless, redis_binary):
    with running(redis_binary) as server, server.client() as client:
        client.acl_setuser(
            "me", enabled=True, passwords=["+pw"], keys=["*"], categories=["+@all"], commands=["-unlink"]
        )
        url = server.url.replace("//", "//me:pw@")
        done = mlless("doctor", "--store", url, "--workers", 1, code=CHANNEL)
    assert "✗ store" in done.stdout
    assert "unlink" in done.stdout
    assert "ACL" in done.stdout


def test_an_interrupt_leaves_nothing_behind(command, redis_binary):
    with running(redis_binary) as server, server.client() as client:
        doctor = subprocess.Popen(
            [*command, "doctor", "--store", server.url, "--workers", "2"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        while not client.keys("mlless-doctor-*") and doctor.poll() is None:
            time.sleep(0.001)
        doctor.send_signal(signal.SIGINT)
        _, told = doctor.communicate(timeout=60)
        # On a busy machine it may have come to its end before the signal came to it.
        assert (doctor.returncode, told.split(":")[0]) in [(130, "interrupted"), (0, "")]
        assert client.keys() == []


def test_a_bucket_is_read_and_written(mlless, ratings, redis_server, s3, bucket):
    for path in ratings.dataset.rglob("*"):
        if path.is_file():
            place = s3.folder / bucket / "data" / path.relative_to(ratings.dataset)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place)
    before = s3.objects(bucket)
    done = mlless(
        "doctor", f"s3://{bucket}/data", "--out", f"s3://{bucket}/run", "--store", redis_server.url,
        "--workers", 2, "--json",
    )  # fmt: skip
    found = _findings(done)
    assert all(one["outcome"] == "ok" for one in found.values())
    assert found["out"]["facts"]["place"] == f"s3://{bucket}/run"
    assert found["data there"]["facts"]["get"] > 0
    assert s3.objects(bucket) == before


def test_a_bucket_that_is_not_there(mlless, s3):
    done = mlless(
        "doctor", "s3://nowhere/data", "--out", "s3://nowhere/run", "--workers", 1, "--json", code=CHANNEL
    )
    found = _findings(done)
    assert found["data set"]["outcome"] == found["out"]["outcome"] == "failed"
    assert "s3://nowhere" in found["out"]["text"]
    assert found["out"]["cure"]


def test_a_folder_for_runs(mlless, tmp_path, channels):
    told = mlless("doctor", "--out", tmp_path / "runs" / "first", "--workers", 1).stdout
    assert f"✓ out        {tmp_path}: an object" in told
    (tmp_path / "file").write_text("")
    told = mlless("doctor", "--out", tmp_path / "file" / "run", "--workers", 1, code=CHANNEL).stdout
    assert "✗ out" in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]
