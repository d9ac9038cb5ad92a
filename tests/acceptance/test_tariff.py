"""mlless tariff, as a user types it."""

from __future__ import annotations

from mlless.billing.tariff import TARIFFS, load_tariff


def test_the_list_and_one_of_it(mlless, tmp_path):
    done = mlless("tariff")
    assert [line.split()[0] for line in done.stdout.splitlines()] == TARIFFS.names()
    done = mlless("tariff", "aws-lambda-x86")
    assert "source = " in done.stdout
    (tmp_path / "ours.toml").write_text(done.stdout.replace("0.0000166667", "0.00001"))
    assert load_tariff(str(tmp_path / "ours.toml")).function.gb_second == 0.00001
    assert mlless("tariff", tmp_path / "ours.toml").stdout == (tmp_path / "ours.toml").read_text()


def test_what_is_no_tariff(mlless, tmp_path):
    assert "expected aws-lambda-arm" in mlless("tariff", "aws", code=2).stderr
    (tmp_path / "wrong.toml").write_text('name = "x"\n')
    assert "not a tariff" in mlless("tariff", tmp_path / "wrong.toml", code=2).stderr
