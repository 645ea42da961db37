#!/usr/bin/env bash
# The whole test suite in an environment of its own; arguments go to pytest. Works from any directory; can be run again.
#
#   bash scripts/test.sh                                            with python3
#   PYTHON=python3.13 VENV=.venv-3.13 bash scripts/test.sh          with another one
#   bash scripts/test.sh -m "not slow"                              the quick tests: about two minutes on two processors
#   bash scripts/test.sh -n 0 --pdb tests/test_NAME.py              in one process, with the debugger
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/environment.sh
environment "[dev]"
# One more than there are processors, up to four: tests also wait, for files, locks and other processes.
# A worker that has finished takes tests from the others.
processors=$("$PY" -c 'import os; print(os.cpu_count())')
"$PY" -m pytest -n "$((processors < 3 ? processors + 1 : 4))" --dist worksteal "$@"
