# Shared by all drivers; sourced, never run. Sets up the virtual environment once.
# PYTHON: the interpreter to set it up with. TORCH_INDEX_URL: where else to look for torch.
# shellcheck shell=bash

set -euo pipefail
set +o noclobber # as an exported SHELLOPTS may have it

# Without cd: what a user's CDPATH names is not meant.
PROJECT_ROOT="$(dirname "$(dirname "$(dirname "$(realpath "${BASH_SOURCE[0]}")")")")"
VENV="$PROJECT_ROOT/.venv"
STAMP="$VENV/.requirements.sha256"
TEST_STAMP="$VENV/.requirements-dev.sha256"
# PyPI has torch with CUDA, three times as large, which no training here uses.
TORCH_INDEX_URL="${TORCH_INDEX_URL-https://download.pytorch.org/whl/cpu}"

# Nobody may be listening any more, which is no reason to stop.
say() { printf '%s\n' "$*" >&2 2>/dev/null || true; }

die() {
    say "error: $*"
    exit 2
}

# Prints $PYTHON if set, else the first suitable interpreter: python3 or a versioned one.
find_python() {
    local candidate candidates=(python3 python3.13 python3.12 python3.11 python3.10)
    [[ -z "${PYTHON:-}" ]] || candidates=("$PYTHON")
    for candidate in "${candidates[@]}"; do
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
                >/dev/null 2>&1; then
            command -v "$candidate"
            return
        fi
    done
    die "no Python 3.10-3.13 found${PYTHON:+ at PYTHON=$PYTHON}; install one, or point PYTHON at it" \
        "(PYTHON=/path/to/python3)"
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

# An environment knows its place and the project's: a copy would run what it was copied from.
wanted_stamp() {
    {
        printf '%s\n' "$VENV"
        cat "$PROJECT_ROOT/requirements.txt" "$PROJECT_ROOT/pyproject.toml"
    } | sha256sum | cut -d' ' -f1
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
    # A user's pip may be told to install for the user, which no environment can.
    if ! PIP_USER=0 "$VENV/bin/python" -u -m pip install --disable-pip-version-check --no-input "$@" 2>&1 |
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
    check_platform
    # One that works is mended: it was interrupted, moved, or has older packages.
    local python="$VENV/bin/python" clear=()
    if ! "$python" -c '' >/dev/null 2>&1; then
        python="$(find_python)"
        clear=(--clear)
        say "Creating .venv with $("$python" --version) ..."
    fi
    "$python" -m venv "${clear[@]}" "$VENV" ||
        die "cannot create $VENV; on Debian and Ubuntu install the package python3-venv"
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

# Whether the environment has an interpreter, and the file STAMP what WANTED prints.
is_stamped() { [[ -x "$VENV/bin/python" && -f "$1" && "$(<"$1")" == "$("$2")" ]]; }

# once STAMP WANTED INSTALL: runs INSTALL unless the file STAMP holds what WANTED prints. It is
# written last, so that an interrupted installation goes on at the next start.
once() {
    is_stamped "$1" "$2" && return
    mkdir -p "$VENV" 2>/dev/null || die "cannot create $VENV; is the disk full or read-only?"
    exec 9<"$VENV" # the folder itself: all that is in it may be made anew
    if ! flock --nonblock 9; then
        say "Another script sets up .venv; waiting for it ..."
        flock 9
    fi
    if ! is_stamped "$1" "$2"; then
        trap 'say "Interrupted; the next start goes on with the installation."; exit 130' INT
        "$3"
        trap - INT
        "$2" >"$1" || die "cannot write $1; is the disk full?"
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
