#!/bin/sh
# Trains with every system that mlless compare knows, on ratings and on clicks, with four workers:
#
#     examples/compare.sh [RATINGS [CLICKS]]
#
# RATINGS and CLICKS are files as mlless partition takes them, such as MovieLens' ratings.dat and Criteo's train.txt.
# Without RATINGS it fetches MovieLens-1M from its publisher. What it does not get is made up, in the same shape.
# All it makes is in compare/. The same command goes on where it was stopped. REPETITIONS=3 adds two runs of each,
# SECONDS_EACH=120 bounds a run by two minutes, SYSTEMS=mlless-isp,pywren names who takes part.
set -eu
ratings=${1:-} clicks=${2:-} out=${OUT:-compare}
mkdir -p "$out"

if [ -z "$ratings" ] && [ ! -e "$out/ratings/manifest.json" ]; then
    if mlless fetch ml-1m "$out/ml-1m"; then
        ratings=$out/ml-1m/ratings.dat
    else
        echo "MovieLens-1M is not to be had here: these ratings are MADE UP, in its shape"
        ratings=$out/made-up-ratings.csv
        mlless synthesize ml-1m "$ratings"
    fi
fi
if [ -z "$clicks" ] && [ ! -e "$out/clicks/manifest.json" ]; then
    echo "no file of clicks is named: these are MADE UP, 80,000 in Criteo's layout"
    clicks=$out/made-up-clicks.tsv
    mlless synthesize criteo "$clicks" --rows 80000
fi
[ -z "$ratings" ] || [ -e "$out/ratings/manifest.json" ] || mlless partition "$ratings" "$out/ratings"
[ -z "$clicks" ] || [ -e "$out/clicks/manifest.json" ] || mlless partition "$clicks" "$out/clicks"

for kind in ratings clicks; do
    echo "== $kind"
    # Twenty seconds a run keep all of it within a quarter of an hour; who has not come there by then says never.
    mlless compare "$out/$kind" --workers 4 --max-time "${SECONDS_EACH:-20}" --repetitions "${REPETITIONS:-1}" \
        --tariff aws-lambda-x86 --systems "${SYSTEMS:-}" --out "$out/$kind-compared"
done
