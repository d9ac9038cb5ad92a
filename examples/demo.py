"""Trains a factorisation on generated ratings, with all updates shared and with the significant ones only.

    python examples/demo.py

Everything it makes is in the folder demo/, which it overwrites.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

import mlless
from mlless.data.synthetic import write_ratings

WORKERS = 4
EPOCHS = 12
folder = Path("demo")
started = time.monotonic()


def headline(text: str) -> None:
    """Print what comes next."""
    print(f"\n{text}\n{'-' * len(text)}", flush=True)


headline("1. Generate 300,000 ratings of 2,500 users and 1,200 items")
shutil.rmtree(folder, ignore_errors=True)
folder.mkdir()
ratings = folder / "ratings.csv"
floor = write_ratings(ratings, users=2500, items=1200, rows=300_000, factors=4, noise=0.5, seed=1)
print(f"{ratings}: from a planted model, plus noise. The planted model itself has an RMSE of {floor:.4f}.")

headline("2. Deal them to groups, in random order")
dataset = mlless.partition(ratings, folder / "data")
manifest = dataset.manifest
held_out = sum(file.rows for file in manifest.validation)
print(f"{dataset.location}: {len(manifest.train)} groups to train on, {held_out:,} ratings held out.")

headline(f"3. Train with {WORKERS} workers that share only significant updates (ISP)")
settings = {"workers": WORKERS, "factors": 8, "epochs": EPOCHS, "tariff": "aws-lambda-x86"}
isp = mlless.train(folder / "data", out=folder / "isp", sync="isp", **settings)

headline("4. Train again, sharing every update (BSP)")
bsp = mlless.train(folder / "data", out=folder / "bsp", sync="bsp", **settings)

trained = isp.summary.wall_seconds + bsp.summary.wall_seconds
headline("5. Compare")
print(f"{'':12}{'held-out RMSE':>15}{'published':>14}{'steps':>9}{'seconds':>10}{'on AWS Lambda':>16}")
for name, run in (("ISP", isp), ("BSP", bsp)):
    told = run.summary
    megabytes = f"{told.bytes_published / 1e6:.0f} MB"
    cost = f"${told.bill.total:.5f}"
    print(
        f"{name:12}{told.heldout['rmse']:15.4f}{megabytes:>14}{told.steps:9,}{told.wall_seconds:10.1f}{cost:>16}"
    )
print(f"{'planted':12}{floor:15.4f}")
ratio = bsp.summary.bytes_published / isp.summary.bytes_published
print(f"""
ISP published {ratio:.1f} times fewer bytes than BSP. Here they went through memory, where bytes
cost little; functions that meet in a store over a network wait for them, and pay.""")

headline("6. Predict some of the ratings that were held out")
model = isp.model()
ids, group = dataset.ids(), next(dataset.groups(manifest.validation))
users, items = ids.users[group.users], ids.items[group.items]
predicted = model.predict_ratings(users, items)
print(f"{'user':>8}{'item':>8}{'rated':>8}{'predicted':>12}")
for n in range(0, len(group), max(len(group) // 6, 1)):
    print(f"{users[n]:8}{items[n]:8}{group.ratings[n]:8.1f}{predicted[n]:12.2f}")

headline("7. Draw both runs on a page")
page = mlless.write_report([folder / "isp", folder / "bsp"], folder / "report")
print(f"{page}: loss over steps, time and money; workers, time, bytes and the bill. Open it in a browser.")

command = "mlless" if shutil.which("mlless") else os.path.relpath(Path(sys.executable).with_name("mlless"))
print(f"""
Done in {time.monotonic() - started:.0f} s, of which training took {trained:.0f} s. Where to go from here:

    {command} train demo/data --factors 4 --out demo/four
    {command} evaluate demo/isp demo/data
    {command} predict demo/isp demo/ratings.csv --out demo/all.csv
    {command} --help
""")
