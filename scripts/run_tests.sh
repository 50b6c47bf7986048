#!/usr/bin/env bash
# Runs the tests on all processors, or a file that is named in one process; arguments go to pytest.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
source "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/lib/common.sh"

ensure_test_environment
workers=(-n "$(nproc)" --dist worksteal)
arguments=()
for argument in "$@"; do
    path="${argument%%::*}"
    # A worker imports everything anew, for seconds: one file is done sooner without.
    [[ ! -f "$path" ]] || workers=()
    # A path is named from where the user stands; pytest runs in the project.
    [[ ! -e "$path" ]] || argument="$(realpath -- "$path")${argument#"$path"}"
    arguments+=("$argument")
done
cd "$PROJECT_ROOT"
exec "$VENV/bin/python" -m pytest "${workers[@]}" "${arguments[@]}"
