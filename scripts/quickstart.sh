#!/usr/bin/env bash
# From a fresh clone to a trained, evaluated classifier, on data that come inside Python packages.
# Works from any directory, and again. PYTHON and VENV choose the interpreter and the environment: see environment.sh.
#
#   bash scripts/quickstart.sh [DIR] [--baselines]     DIR keeps the runs [runs/digits]; --baselines compares with more
set -eu
runs= baselines=
for argument in "$@"; do
  case $argument in
    --baselines) baselines=--baselines ;;
    /*) runs=$argument ;;
    *) runs=$PWD/$argument ;;
  esac
done
cd "$(dirname "${BASH_SOURCE[0]}")/.."
runs=${runs:-$PWD/runs/digits}
. scripts/environment.sh
environment ""

export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-3} # TensorFlow's notices are no news here
"$PY" scripts/digits_demo.py --workdir "$runs" $baselines
"$PY" -m jaxcat.evaluate --workdir "$runs/finetune-0" --split test --step latest  # as in the table
"$PY" -m jaxcat.predict --workdir "$runs/finetune-0" --step latest --top 2 "$runs/examples"

cat <<END

Everything is in $runs:
  source/, transfer-0/, finetune-0/ …   a run each: checkpoints, metrics.jsonl, learning_curve.png
  finetune-0/evaluation/                test.json and test.predictions.csv
  examples/, examples.png               the images named above; print, handwriting, and the answers
  results.json                          the table
With your own images (DIR/CLASS/…):
  ${VENV:-.venv}/bin/python -m jaxcat.train --config configs/folder.py --workdir runs/mine --config.data.dir=DIR
END
