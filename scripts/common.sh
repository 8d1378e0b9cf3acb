# Shared by the set-up scripts; source it.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$ROOT/.venv
CACHE=${VIRTMGR_CACHE:-$ROOT/.cache}

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
fail() {
    printf 'virtmgr: %s\n' "$1" >&2
    [ -z "${2:-}" ] || printf '  hint: %s\n' "$2" >&2
    exit 1
}

require_supported() {
    [ "$(id -u)" = 0 ] || fail "this must run as root (it makes namespaces, bridges and mounts)" \
        "become root first: sudo make $1"
    [ -r /etc/os-release ] || fail "this system has no /etc/os-release" "use Debian 12"
    # shellcheck disable=SC1091
    local id version
    id=$(. /etc/os-release && echo "${ID:-}")
    version=$(. /etc/os-release && echo "${VERSION_ID:-}")
    [ "$id" = debian ] && [ "$version" -ge 12 ] 2>/dev/null ||
        fail "this system is $id $version; Debian 12 or newer is supported" \
            "use a Debian 12 machine, or install by hand as docs/operator-guide.md says"
    [ "$(uname -m)" = x86_64 ] || fail "this machine is $(uname -m); x86_64 is supported"
}
