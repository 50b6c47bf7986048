#!/usr/bin/env bash
# Warm-starts, trains and compares a PPO router inside Vidur. All options: --help.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
source "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/lib/common.sh"

ensure_environment
exec "$VENV/bin/vidur-ppo" train "$@"
