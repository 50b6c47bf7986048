#!/usr/bin/env bash
# Collects demonstration sets, shows them and deletes them. All options: --help.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
source "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/lib/common.sh"

ensure_environment
exec "$VENV/bin/vidur-ppo" demos "$@"
