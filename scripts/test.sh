#!/usr/bin/env bash
# The whole test suite in an environment of its own; arguments go to pytest. Works from any directory, and again.
#
#   bash scripts/test.sh                                            with python3
#   PYTHON=python3.13 VENV=.venv-3.13 bash scripts/test.sh          with another one
#   bash scripts/test.sh -m "not slow"                              the quick ones
#   bash scripts/test.sh -n 0 --pdb tests/test_x.py                 in one process, with the debugger
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/environment.sh
environment "[dev]"
# up to four tests at once; a test that is late goes to the worker that is through with its own
"$PY" -m pytest -n logical --maxprocesses 4 --dist worksteal "$@"
