#!/usr/bin/env bash
# The whole test suite in an environment of its own; arguments go to pytest. Works from any directory, and again.
#
#   bash scripts/test.sh                                            with python3
#   PYTHON=python3.13 VENV=.venv-3.13 bash scripts/test.sh          with another one
#   bash scripts/test.sh -m "not slow"                              the quick ones
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/environment.sh
environment "[dev]"
"$PY" -m pytest "$@"
