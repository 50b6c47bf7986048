# Shared by all drivers; sourced, never run. Sets up the virtual environment once.
# PYTHON: the interpreter to set it up with. TORCH_INDEX_URL: where else to look for torch.
# shellcheck shell=bash

set -euo pipefail

PROJECT_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
VENV="$PROJECT_ROOT/.venv"
STAMP="$VENV/.requirements.sha256"
TEST_STAMP="$VENV/.requirements-dev.sha256"
# PyPI has torch with CUDA, three times as large, which no training here uses.
TORCH_INDEX_URL="${TORCH_INDEX_URL-https://download.pytorch.org/whl/cpu}"

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

# Dies unless the disk has room for what an environment of so many MB still lacks.
check_disk() {
    local free_mb lacking_mb
    free_mb="$(df -Pm "$PROJECT_ROOT" | awk 'NR == 2 { print $4 }')"
    lacking_mb=$(($1 - $(du -sm "$VENV" | cut -f1)))
    ((free_mb >= lacking_mb)) || die "$PROJECT_ROOT has $free_mb MB of free disk;" \
        "the environment and its downloads need $lacking_mb MB more"
}

wanted_stamp() {
    cat "$PROJECT_ROOT/requirements.txt" "$PROJECT_ROOT/pyproject.toml" | sha256sum | cut -d' ' -f1
}

wanted_test_stamp() {
    cat "$STAMP" "$PROJECT_ROOT/requirements-dev.txt" | sha256sum | cut -d' ' -f1
}

# Keeps one line of the terminal, if there is one, at pip's last step and the time it took so far.
show_progress() {
    local line step="" status
    if [[ ! -t 2 ]]; then
        cat >/dev/null
        return
    fi
    SECONDS=0
    while IFS= read -r -t 1 line || { status=$? && ((status > 128)); }; do
        case "$line" in
            Collecting* | *Downloading* | Installing*) step="${line%% (from *}" ;;
        esac
        printf '\r\e[K%d:%02d %.70s' $((SECONDS / 60)) $((SECONDS % 60)) "$step" >&2
    done
    printf '\r\e[K' >&2
}

pip_install() {
    local log="$VENV/install.log"
    if ! "$VENV/bin/python" -u -m pip install --disable-pip-version-check --no-input "$@" 2>&1 |
        tee -a "$log" | show_progress; then
        tail -n 5 "$log" >&2
        die "pip could not install ($*); is there a network connection and disk space? Log: $log"
    fi
}

# Whether pip finds that build of torch. An index that does not answer costs ten seconds at most.
torch_exists() {
    "$VENV/bin/python" -m pip index versions torch --disable-pip-version-check \
        --timeout 10 --retries 0 "${@:2}" 2>/dev/null | grep -F " $1" >/dev/null
}

# Installs torch and what its build needs: without CUDA if any index in use, or $TORCH_INDEX_URL,
# has such a build.
install_torch() {
    local pin torch
    pin="$(grep '^torch==' "$PROJECT_ROOT/requirements.txt")"
    torch=("$pin+cpu")
    if ! torch_exists "${pin#*==}+cpu"; then
        torch+=(--extra-index-url "$TORCH_INDEX_URL")
        torch_exists "${pin#*==}+cpu" "${torch[@]:1}" || torch=("$pin")
    fi
    if [[ "${torch[0]}" == *+cpu ]]; then
        check_disk 3000 # 1850, and twice the downloads: pip unpacks them and keeps them
        say "Installing requirements.txt (once; 1.8 GB, some minutes) ..."
    else
        check_disk 9000 # 5600 and the same
        say "$TORCH_INDEX_URL has no $pin without CUDA, or does not answer (see TORCH_INDEX_URL)."
        say "Installing requirements.txt with CUDA (once; 5.5 GB, many minutes) ..."
    fi
    pip_install --constraint "$PROJECT_ROOT/requirements.txt" "${torch[@]}"
}

install_environment() {
    local python
    check_platform
    if ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
        python="$(find_python)"
        say "Creating .venv with $("$python" --version) ..."
        "$python" -m venv "$VENV" ||
            die "cannot create $VENV; on Debian and Ubuntu install the package python3-venv"
    fi
    : >"$VENV/install.log"
    install_torch
    # The lock is complete; what Vidur asks for but no simulation imports stays out.
    pip_install --no-deps -r "$PROJECT_ROOT/requirements.txt"
    say "Installing the project ..."
    pip_install --no-build-isolation --no-deps -e "$PROJECT_ROOT"
    say "Environment ready."
}

install_test_tools() {
    say "Installing requirements-dev.txt (once; 0.2 GB) ..."
    pip_install --no-deps -r "$PROJECT_ROOT/requirements-dev.txt"
}

# once STAMP WANTED INSTALL: runs INSTALL unless the file STAMP holds what WANTED prints. It is
# written last, so that an interrupted installation goes on at the next start.
once() {
    [[ -f "$1" && "$(<"$1")" == "$("$2")" ]] && return
    mkdir -p "$VENV"
    exec 9>"$VENV/.installing"
    if ! flock --nonblock 9; then
        say "Another script sets up .venv; waiting for it ..."
        flock 9
    fi
    if [[ ! -f "$1" || "$(<"$1")" != "$("$2")" ]]; then
        trap 'say "Interrupted; the next start goes on with the installation."; exit 130' INT
        "$3"
        trap - INT
        "$2" >"$1"
    fi
    exec 9>&-
}

# Creates .venv and installs what runs, and the project.
ensure_environment() { once "$STAMP" wanted_stamp install_environment; }

# The same with what the tests and checks need.
ensure_test_environment() {
    ensure_environment
    once "$TEST_STAMP" wanted_test_stamp install_test_tools
}
