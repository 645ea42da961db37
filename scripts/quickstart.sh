#!/usr/bin/env bash
# From a fresh clone to a trained, evaluated classifier, on data from matplotlib and scikit-learn.
# Works from any directory; can be run again. PYTHON and VENV choose interpreter and environment: see environment.sh.
set -eu
usage="usage: bash scripts/quickstart.sh [DIR] [--baselines]
  DIR          where the runs go (default: runs/digits)
  --baselines  compare more ways to learn"
runs= baselines=
for argument in "$@"; do
  case $argument in
    --baselines) baselines=--baselines ;;
    -h | --help) echo "$usage" && exit ;;
    -*) echo "$argument: no such option; $usage" >&2 && exit 2 ;;
    /*) runs=$argument ;;
    *) runs=$PWD/$argument ;;
  esac
done
cd "$(dirname "${BASH_SOURCE[0]}")/.."
runs=${runs:-$PWD/runs/digits}
. scripts/environment.sh
environment ""

export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-3} # hides TensorFlow's notices
"$PY" scripts/digits_demo.py --workdir "$runs" $baselines
"$PY" -m jaxcat.evaluate --workdir "$runs/finetune-0" --split test --step latest  # as in the table
"$PY" -m jaxcat.report --workdir "$runs/finetune-0" --split test --step latest
"$PY" -m jaxcat.predict --workdir "$runs/finetune-0" --step latest --top 2 "$runs/examples"

cat <<END

Everything is in $runs:
  source/, transfer-0/, finetune-0/ …   one run each: checkpoints, metrics.jsonl, learning_curve.png
  finetune-0/evaluation/                test.json and test.predictions.csv
  finetune-0/report/index.html          a page for the browser: what it learned, where it fails and why
  examples/, examples.png               the images predicted above; letters, digits and predictions in one image
  results.json                          the table
To train on your own images (DIR/CLASS/…):
  ${VENV:-.venv}/bin/python -m jaxcat.train --config configs/folder.py --workdir runs/mine --config.data.dir=DIR
END
