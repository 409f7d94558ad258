# shellcheck shell=bash
# For sourcing: need PACKAGE... installs the Debian packages that this computer lacks.

has_package() {
    [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

need() {
    local package missing=()
    for package in "$@"; do
        has_package "$package" || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$EUID" -ne 0 ] || ! command -v apt-get >/dev/null; then
        printf 'Missing here: %s. Install with: sudo apt-get install %s\n' \
            "${missing[*]}" "${missing[*]}" >&2
        return 1
    fi
    printf '📥 installing %s ...\n' "${missing[*]}" >&2
    apt_get install "${missing[@]}"
}

# apt_get VERB ARGUMENT...: quiet, unless it fails.
apt_get() {
    local log
    log=$(mktemp)
    # One unreachable archive among several fails the update, not yet the installation.
    apt-get -q update </dev/null >"$log" 2>&1 || true
    if ! DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends "$@" \
        </dev/null >>"$log" 2>&1; then
        tail -n 40 "$log" >&2
        rm -f "$log"
        printf 'apt-get %s failed: the lines above say why.\n' "$*" >&2
        return 1
    fi
    rm -f "$log"
}
