#!/usr/bin/env bash
# Writes requirements.txt and requirements-dev.txt anew from the ranges in pyproject.toml. What is
# pinned stays as it is; --upgrade, or --upgrade-package NAME, lets it move on.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
source "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/lib/common.sh"

# Prints the pins of pyproject.toml, without the markers that hold on every machine we run on and
# without torch's CUDA libraries: torch pins them itself, and its CPU build has none.
pins() {
    cat requirements.txt requirements-dev.txt >"$pinned"
    "$VENV/bin/uv" pip compile pyproject.toml --universal --python-version 3.10 --quiet \
        --no-header --no-annotate --output-file "$pinned" "$@" >/dev/null || return
    sed -E "s/ and (platform_machine == 'x86_64'|sys_platform == 'linux')//g
        s/ ; python_full_version < '3\.14' and / ; /
        s/( and| ;) python_full_version < '3\.14'$//" "$pinned" |
        grep -vE '^(nvidia|cuda|triton)\b'
}

header() {
    printf '# %s\n' "$1" "Made by scripts/lock.sh from pyproject.toml; do not edit."
}

ensure_test_environment
cd "$PROJECT_ROOT"
pinned="$(mktemp)"
trap 'rm -f "$pinned"' EXIT

run="$(pins "$@")"
all="$(pins "$@" --extra dev --constraint <(echo "$run"))"
{
    header "All that runs, for Python 3.10-3.13 on Linux x86_64. torch brings its CUDA libraries itself."
    echo "$run"
} >requirements.txt
{
    header "What tests, checks and benchmarks/ need besides requirements.txt."
    grep -vxF "$run" <<<"$all"
} >requirements-dev.txt
say "Wrote requirements.txt and requirements-dev.txt."
