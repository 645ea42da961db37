#!/usr/bin/env bash
# From a fresh clone to a trained, evaluated classifier, on data that come inside Python packages.
# Works from any directory, and again. PYTHON and VENV choose the interpreter and the environment: see environment.sh.
set -eu
case ${1:-} in
  /* | "") runs=${1:-} ;;
  *) runs=$PWD/$1 ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."
runs=${runs:-$PWD/runs/digits}
. scripts/environment.sh
environment ""

"$PY" scripts/digits_demo.py --workdir "$runs"
"$PY" -m jaxcat.evaluate --workdir "$runs/finetune-0" --split test --step latest  # as in the table
"$PY" -m jaxcat.predict --workdir "$runs/finetune-0" --step latest --top 2 "$runs/examples"

cat <<END

Everything is in $runs:
  source/, transfer-0/, finetune-0/ …   a run each: checkpoints, metrics.jsonl, learning_curve.png
  finetune-0/evaluation/                test.json and test.predictions.csv
  examples/, examples.png               the pictures named above; print, handwriting, and the answers
  results.json                          the table
With your own pictures (DIR/CLASS/…):
  ${VENV:-.venv}/bin/python -m jaxcat.train --config configs/folder.py --workdir runs/mine --config.data.dir=DIR
END
