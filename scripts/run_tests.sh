#!/usr/bin/env bash
# Runs the tests; arguments go to pytest (e.g. a file).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"

ensure_environment
cd "$PROJECT_ROOT"
exec "$VENV/bin/python" -m pytest "$@"
