"""The price book, and tariffs of one's own."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from mlless.billing.meter import Meter
from mlless.billing.tariff import TARIFFS, Tariff, load_tariff
from mlless.errors import UsageError

OWN = """
name = "ours"
note = "by the cluster's owner"
function = {gb_second = 0.00001, source = "contract", date = "2026-01-01"}
[[servers]]
name = "redis"
hour = 0.5
source = "contract"
date = "2026-01-01"
"""


def test_the_book() -> None:
    assert TARIFFS.names() == ["aws-lambda-arm", "aws-lambda-x86", "google-cloud-run", "published-ibm"]


@pytest.mark.parametrize("name", TARIFFS.names())
def test_every_entry_says_where_it_is_from_and_when(name: str) -> None:
    tariff = load_tariff(name)
    entries = [
        tariff.function,
        *tariff.servers,
        *filter(None, (tariff.machine, tariff.requests, tariff.traffic)),
    ]
    for entry in entries:
        assert entry.source
        year, month, day = map(int, entry.date.split("-"))
        assert 2014 < year < 2100
        assert 1 <= month <= 12
        assert 1 <= day <= 31
    assert tariff.note
    assert msgspec.json.decode(msgspec.json.encode(tariff), type=Tariff) == tariff


def test_list_prices() -> None:
    x86, arm = load_tariff("aws-lambda-x86"), load_tariff("aws-lambda-arm")
    assert (x86.function.gb_second, arm.function.gb_second) == (0.0000166667, 0.0000133334)
    assert x86.function.million_invocations == arm.function.million_invocations == 0.20
    assert x86.requests is not None
    assert (x86.requests.thousand_reads, x86.requests.thousand_writes) == (0.0004, 0.005)


def test_what_a_budget_pays_for_on_machines_as_published() -> None:
    """36 cents: 24 processes on six machines for 1,080 seconds."""
    tariff = load_tariff("published-ibm").of_machines(24)
    meter = Meter(tariff, opened=0.0)
    meter.start(range(24), 0.0)
    assert meter.cost(1080.0) == pytest.approx(
        0.36 + 1080 * sum(one.hour for one in load_tariff("published-ibm").servers) / 3600
    )
    assert meter.rate(24) == meter.rate(0)  # processes cost nothing themselves
    assert tariff.servers[-1].name == "6 x VM (B1.4x8)"
    assert load_tariff("published-ibm").of_machines(25).servers[-1].hour == pytest.approx(7 * 0.20)


def test_a_tariff_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(OWN)
    tariff = load_tariff(str(path))
    assert tariff.name == "ours"
    assert tariff.servers[0].hour == 0.5
    assert tariff.function.granularity == 0.001


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("[[servers]]", '[[servers]]\nname = "redis"\nhour = 1.0\nsource = "x"\ndate = "y"\n[[servers]]'),
            "two servers",
        ),
        (
            (
                "[[servers]]",
                '[traffic]\nsource = "contract"\ndate = "2026-01-01"\ngb_exchanged = -0.1\n[[servers]]',
            ),
            "from 0",
        ),
        (("0.00001", "-1.0"), "from 0"),
        (("0.00001", "inf"), "from 0"),
        (("hour = 0.5", "hour = nan"), "from 0"),
        ((', date = "2026-01-01"}', "}"), "date"),
        (("gb_second", "gb_seconds"), "gb_second"),
        (('date = "2026-01-01"}', 'date = "2026-01-01", granularity = 0.0}'), "granularity"),
        (('name = "ours"', "name ="), "not a tariff"),
    ],
)
def test_a_wrong_tariff_is_refused(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(OWN.replace(*change, 1))
    with pytest.raises(UsageError, match=message):
        load_tariff(str(path))


def test_an_unknown_tariff_names_those_there_are() -> None:
    with pytest.raises(
        UsageError, match="aws-lambda-arm, aws-lambda-x86, google-cloud-run, published-ibm, or a TOML file"
    ):
        load_tariff("aws")
