#!/usr/bin/env bash
# Installs what the tests need from Debian's packages, and nothing that is there already.
#
# As root, or with a sudo that asks no password, it calls apt; anyone else gets one message that names
# what is missing and the command that brings it. Does nothing, and quickly, on a machine that has all.
set -euo pipefail

# what must be there, and the package that brings it
readonly NEEDED="
initdb                   postgresql-15
pgbouncer                pgbouncer
redis-server             redis-server
valgrind                 valgrind
strace                   strace
faketime                 faketime
nginx                    nginx-light
haproxy                  haproxy
wrk                      wrk
h2load                   nghttp2-client
cc                       build-essential
curl                     curl
git                      git
flock                    util-linux
openssl                  openssl
chromium-headless-shell  chromium-headless-shell
kill                     procps
python3-venv             python3-venv
"

# Debian keeps PostgreSQL's servers, PgBouncer, nginx and HAProxy out of a user's PATH, and a venv needs modules, not a command.
has() {
    case "$1" in
    initdb) compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null ;;
    nginx | haproxy | pgbouncer) command -v "$1" >/dev/null || test -x "/usr/sbin/$1" ;;
    python3-venv) python3 -c 'import venv, ensurepip' 2>/dev/null ;;
    *) type -P "$1" >/dev/null ;; # a file: the shell has a `kill` of its own, programs need one to run
    esac
}

missing_packages() {
    local program package
    while read -r program package; do
        if [ -n "$program" ] && ! has "$program"; then
            echo "$package"
        fi
    done <<<"$NEEDED"
}

mapfile -t missing < <(missing_packages)
if [ ${#missing[@]} -eq 0 ]; then
    echo "Debian packages: all there" >&2
    exit 0
fi

install=(apt-get install -y --no-install-recommends "${missing[@]}")
as_root=()
if ! command -v apt-get >/dev/null; then
    echo "missing: ${missing[*]} (Debian's names), and there is no apt-get here:" \
        "install these programs with this system's package manager" >&2
    exit 1
elif [ "$(id -u)" -ne 0 ]; then
    if ! sudo -n true 2>/dev/null; then
        echo "missing: ${missing[*]}, and this user may not install packages: run  sudo ${install[*]}" >&2
        exit 1
    fi
    as_root=(sudo -n)
fi

echo "Debian packages: installing ${missing[*]}" >&2
"${as_root[@]}" apt-get update -qq </dev/null >&2
# RUNLEVEL keeps the packages from starting servers: each test starts its own, on its own port.
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 "${install[@]}" </dev/null >&2

mapfile -t missing < <(missing_packages)
if [ ${#missing[@]} -gt 0 ]; then
    echo "still missing after ${install[*]}: ${missing[*]}" >&2
    exit 1
fi
