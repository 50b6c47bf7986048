#!/usr/bin/env bash
# Shows how the newest training is going, or another one. All options: --help.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
source "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/lib/common.sh"

ensure_environment
exec "$VENV/bin/vidur-ppo" monitor "$@"
