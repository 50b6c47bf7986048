# Shared by all drivers; sourced, never run. Sets up the virtual environment once.
# shellcheck shell=bash

set -euo pipefail

PROJECT_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
VENV="$PROJECT_ROOT/.venv"
STAMP="$VENV/.requirements.sha256"

say() { printf '%s\n' "$*" >&2; }

die() {
    say "error: $*"
    exit 2
}

# Prints the first suitable interpreter: $PYTHON if set, else python3 or a versioned one.
find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11 python3.10; do
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
                >/dev/null 2>&1; then
            command -v "$candidate"
            return
        fi
    done
    die "no Python 3.10-3.13 found; install one, or point PYTHON at it (PYTHON=/path/to/python3)"
}

check_platform() {
    [[ "$(uname -s)" == Linux && "$(uname -m)" == x86_64 ]] ||
        die "this is $(uname -s) $(uname -m); Vidur's wheels exist for Linux x86_64 only"
}

check_disk() {
    local free_mb
    free_mb="$(df -Pm "$PROJECT_ROOT" | awk 'NR == 2 { print $4 }')"
    ((free_mb >= 4096)) ||
        die "$PROJECT_ROOT has $free_mb MB of free disk; the environment needs 4096 MB"
}

wanted_stamp() {
    cat "$PROJECT_ROOT/requirements.txt" "$PROJECT_ROOT/pyproject.toml" | sha256sum | cut -d' ' -f1
}

pip_install() {
    local log="$VENV/install.log"
    if ! "$VENV/bin/python" -m pip install --disable-pip-version-check --no-input "$@" \
        >>"$log" 2>&1; then
        tail -n 5 "$log" >&2
        die "pip could not install ($*); is there a network connection and disk space? Log: $log"
    fi
}

# Creates .venv and installs the requirements and the project, unless their stamp says it is done.
ensure_environment() {
    local python
    if [[ -f "$STAMP" && "$(<"$STAMP")" == "$(wanted_stamp)" ]]; then
        return
    fi
    check_platform
    check_disk
    if [[ ! -x "$VENV/bin/python" ]]; then
        python="$(find_python)"
        say "Creating .venv with $("$python" --version) ..."
        "$python" -m venv "$VENV" ||
            die "cannot create $VENV; on Debian and Ubuntu install the package python3-venv"
    fi
    say "Installing requirements.txt (once; about a gigabyte, some minutes) ..."
    : >"$VENV/install.log"
    pip_install -r "$PROJECT_ROOT/requirements.txt"
    say "Installing the project ..."
    pip_install --no-build-isolation --no-deps -e "$PROJECT_ROOT"
    wanted_stamp >"$STAMP"
    say "Environment ready."
}
