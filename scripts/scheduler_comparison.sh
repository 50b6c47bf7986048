#!/usr/bin/env bash
# Compares a policy with every heuristic on held-out workloads. All options: --help.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
source "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/lib/common.sh"

ensure_environment
exec "$VENV/bin/vidur-ppo" compare "$@"
