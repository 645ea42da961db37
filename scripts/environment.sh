# Sourced by quickstart.sh and test.sh: makes the virtual environment and installs jaxcat with the tested versions.
#
#   PYTHON   the interpreter, 3.11 to 3.13; default python3
#   VENV     the folder of the environment; default .venv
#
# Call `environment EXTRAS` (such as "[dev]" or ""); afterwards $PY is its Python.

fail() {
  echo "error: $*" >&2
  exit 1
}

environment() {
  local extras=$1 python=${PYTHON:-python3} venv=${VENV:-.venv} wanted stamp
  command -v "$python" >/dev/null || fail "$python not found: install Python 3.11, 3.12 or 3.13, or name one with PYTHON=/path/to/python"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$python" --version) is too old: jaxcat needs 3.11 to 3.13; name one with PYTHON=/path/to/python"
  "$python" -c 'import sys; sys.exit(sys.version_info >= (3, 14))' ||
    fail "$("$python" --version) is too new for TensorFlow 2.21: jaxcat needs 3.11 to 3.13; name one with PYTHON=/path/to/python"
  if [ ! -x "$venv/bin/python" ]; then
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
      fail "$python has no venv module: install it (on Debian and Ubuntu: apt install python3-venv)"
    "$python" -m venv "$venv" || fail "cannot make a virtual environment in $PWD/$venv"
  fi
  case $venv in
    /*) PY=$venv/bin/python ;;
    *) PY=$PWD/$venv/bin/python ;;
  esac
  [ "$("$PY" -c 'import sys; print(sys.version_info[:2])')" = "$("$python" -c 'import sys; print(sys.version_info[:2])')" ] ||
    fail "$venv holds $("$PY" --version), not $("$python" --version): remove it, or name another with VENV=DIR"
  wanted=$(cat pyproject.toml constraints.txt | cksum)
  stamp=$venv/installed$extras
  if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "installing what jaxcat$extras lacks in $venv (all of it: about 2.5 GB, a minute or two) …"
    "$PY" -m pip install -qq --disable-pip-version-check -c constraints.txt -e ".$extras" ||
      fail "installation failed: see the messages of pip above"
    echo "$wanted" >"$stamp"
  fi
}
