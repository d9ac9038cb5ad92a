"""What goes wrong is told in one line, with an exit code that scripts can rely on."""

from __future__ import annotations

import json
import shutil

import pytest

RUNS = ("resume", "status", "attach", "stop", "clean", "report")
USAGE, INPUT, DATASET, JOB = 2, 3, 4, 6


def one_line(done):
    """Return the one line of an error."""
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["partition", "{tmp}/none.csv", "{tmp}/data"], INPUT, "none.csv"),
        (["partition", "{raw}", "{dataset}"], USAGE, "--overwrite"),
        (["partition", "{raw}", "{tmp}/data", "--validation", "1.5"], USAGE, "1.5"),
        (["train", "{tmp}/none", "--out", "{tmp}/run"], DATASET, "no such folder"),
        (["train", "{dataset}", "--workers", "0", "--out", "{tmp}/run"], USAGE, "number of workers"),
        (["train", "{dataset}", "--workers", "999", "--out", "{tmp}/run"], USAGE, "--workers up to 300"),
        (["train", "{dataset}", "--model", "lr", "--out", "{tmp}/run"], USAGE, "--model mf"),
        (["train", "{dataset}", "--target", "rmse", "--out", "{tmp}/run"], USAGE, "METRIC=VALUE"),
        (["train", "{dataset}", "--target", "auc=0.8", "--out", "{tmp}/run"], USAGE, "auc"),
        (["train", "{dataset}", "--learning-rate", "-1", "--out", "{tmp}/run"], USAGE, "learning rate"),
        (["train", "{dataset}", "--sync", "bsp", "--significance", "1", "--out", "{tmp}/run"], USAGE, "BSP"),
        (
            ["train", "{dataset}", "--memory", "2G", "--out", "{tmp}/run"],
            USAGE,
            "a whole number (MB), found 2G",
        ),
        (["train", "{dataset}", "--epochs", "x", "--out", "{tmp}/run"], USAGE, "a whole number, found x"),
        (["train", "{dataset}", "--memory", "5", "--out", "{tmp}/run"], USAGE, "--memory is less than"),
        *(([name, "{tmp}/none"], DATASET, "no run here") for name in RUNS),
        (["evaluate", "{dataset}", "{dataset}"], DATASET, "no model here"),
        (["evaluate", "{run}", "{run}"], DATASET, "not a data set"),
        (["evaluate", "{run}", "{clicks}"], USAGE, "expected ratings, found clicks"),
        (["predict", "{run}", "{clicks}"], USAGE, "expected ratings, found clicks"),
        (["predict", "{run}", "{svm}"], USAGE, "expected ratings, found clicks"),
        (["predict", "{run}", "{tmp}/none.csv"], INPUT, "none.csv"),
    ],
)
def test_bad_requests(mlless, ratings, clicks, tmp_path, arguments, code, says):
    places = {
        "tmp": tmp_path, "raw": ratings.raw, "dataset": ratings.dataset, "run": ratings.run,
        "clicks": clicks.dataset, "svm": clicks.raw,
    }  # fmt: skip
    done = mlless(*(argument.format(**places) for argument in arguments), code=code)
    assert says in one_line(done)
    assert list(tmp_path.iterdir()) == []


def test_a_warning_is_one_line(mlless, ratings, tmp_path):
    what = "train", ratings.dataset, "--workers", 1, "--slack", 2, "--epochs", 1, "--out", tmp_path / "run"
    assert mlless(*what).stderr == "warning: one worker waits for nobody: slack has no effect\n"


def test_a_data_set_that_is_partly_deleted_is_no_data_set(mlless, ratings, tmp_path):
    shutil.copytree(ratings.dataset, tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "train")
    for arguments in (["evaluate", "--part", "train"], ["predict"]):
        done = mlless(arguments[0], ratings.run, tmp_path / "data", *arguments[1:], code=DATASET)
        assert "a file of the data set is missing. Partition the source again" in one_line(done)
        assert done.stdout == ""


def test_what_is_read_is_not_replaced(mlless, ratings, tmp_path):
    pairs, users = tmp_path / "pairs.csv", tmp_path / "users.txt"
    pairs.write_text("user,item\n1,2\n")
    users.write_text("1\n")
    for arguments in (
        ["predict", ratings.run, pairs, "--out", pairs],
        ["predict", ratings.run, tmp_path / "*.csv", "--out", tmp_path / "." / "pairs.csv"],
        ["predict", ratings.run, tmp_path, "--out", pairs],
        ["recommend", ratings.run, "--users", users, "--out", users],
    ):
        assert "a file that is read would be replaced" in one_line(mlless(*arguments, code=USAGE))
    assert pairs.read_text() == "user,item\n1,2\n"
    assert users.read_text() == "1\n"
    mlless("predict", ratings.run, pairs, "--out", tmp_path / "new.csv")


@pytest.mark.parametrize("arguments", [["train"], ["fly"], ["train", "data", "--workers", "many"]])
def test_what_no_command_understands_is_a_usage_error(mlless, arguments):
    if arguments == ["train"]:
        assert "Usage" in mlless(*arguments, code=2).stdout
    else:
        assert "Usage" in mlless(*arguments, code=2).stderr


def test_a_run_is_not_overwritten_unless_asked(mlless, ratings, tmp_path):
    options = ["--workers", 1, "--epochs", 1, "--out", tmp_path / "run"]
    mlless("train", ratings.dataset, *options)
    before = (tmp_path / "run" / "summary.json").read_bytes()
    assert "--overwrite" in one_line(mlless("train", ratings.dataset, *options, code=USAGE))
    assert (tmp_path / "run" / "summary.json").read_bytes() == before
    mlless("train", ratings.dataset, *options, "--overwrite")
    assert (tmp_path / "run" / "summary.json").read_bytes() != before


def test_a_folder_that_is_no_run_is_never_overwritten(mlless, ratings, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    one_line(mlless("train", ratings.dataset, "--out", tmp_path, "--overwrite", code=USAGE))
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_damaged_mini_batch_is_named(mlless, ratings, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(ratings.dataset, data)
    (path,) = data.glob("train/000003-*.safetensors")
    damaged = bytearray(path.read_bytes())
    damaged[-5] ^= 1
    path.write_bytes(damaged)
    done = mlless("train", data, "--workers", 2, "--epochs", 1, "--out", tmp_path / "run", code=DATASET)
    assert f"train/{path.name}: damaged file" in one_line(done)
    done = mlless("evaluate", ratings.run, data, "--part", "train", code=DATASET)
    assert f"train/{path.name}: damaged file" in one_line(done)


@pytest.mark.parametrize(
    ("change", "says", "cure"),
    [
        (
            lambda text: text.replace('"format": 2', '"format": 1'),
            "another version: expected format 2, found format 1",
            "mlless partition ratings.csv ",
        ),
        (lambda text: text[: len(text) // 2], "not a valid manifest", "Partition the source again"),
    ],
)
def test_a_manifest_of_another_version_or_damaged(mlless, ratings, tmp_path, change, says, cure):
    data = tmp_path / "data"
    shutil.copytree(ratings.dataset, data)
    manifest = data / "manifest.json"
    text = manifest.read_text()
    assert json.loads(text)["format"] == 2
    manifest.write_text(change(text))
    done = mlless("train", data, "--out", tmp_path / "run", code=DATASET)
    assert says in one_line(done)
    assert cure in done.stderr


def test_a_damaged_model_is_told(mlless, ratings, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    assert "not a model" in one_line(mlless("evaluate", tmp_path, ratings.dataset, code=DATASET))


def test_predictions_that_cannot_be_written(mlless, ratings, tmp_path):
    (tmp_path / "no").touch()
    done = mlless("predict", ratings.run, ratings.raw, "--out", tmp_path / "no" / "folder.csv", code=5)
    assert "cannot write" in one_line(done)
    mlless("predict", ratings.run, ratings.raw, "--out", tmp_path / "new" / "folder.csv")
    assert (tmp_path / "new" / "folder.csv").is_file()


def test_version_and_help(mlless):
    assert mlless("--version").stdout.startswith("mlless ")
    text = mlless("--help").stdout
    assert all(name in text for name in ("partition", "train", "evaluate", "predict"))
    assert "mlless train data/ratings" in mlless("train", "--help").stdout
