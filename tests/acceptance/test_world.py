"""mlless world, as a user types it."""

from __future__ import annotations

from mlless.simulation.world import WORLDS, load_world


def test_the_list_and_one_of_it(mlless, tmp_path):
    assert [line.split()[0] for line in mlless("world").stdout.splitlines()] == WORLDS.names()
    printed = mlless("world", "lan").stdout
    (tmp_path / "ours.toml").write_text(printed.replace("network = 1250e6", "network = 125e6"))
    assert load_world(str(tmp_path / "ours.toml")).hosts["machine"].network == 125e6
    assert "expected aws-lambda" in mlless("world", "moon", code=2).stderr
