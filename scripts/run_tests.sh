#!/usr/bin/env bash
# Runs the tests on all processors, or a file that is named in one process; arguments go to pytest.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"

ensure_test_environment
cd "$PROJECT_ROOT"
# A worker imports everything anew, for seconds: one file is done sooner without.
workers=(-n "$(nproc)" --dist worksteal)
for argument in "$@"; do
    if [[ -f "${argument%%::*}" ]]; then
        workers=()
    fi
done
exec "$VENV/bin/python" -m pytest "${workers[@]}" "$@"
