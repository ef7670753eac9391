#!/usr/bin/env bash
# Install Debian's PostgreSQL where there is none, without the server that Debian would start. Ends with 3 where it
# cannot be had.
set -u
found() { command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; }
found && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "PostgreSQL is not installed, and only root on Debian or Ubuntu can have it installed here:" >&2
    echo "    apt-get install postgresql" >&2
    exit 3
fi
conf=/etc/postgresql-common/createcluster.conf
if [ ! -e "$conf" ]; then
    mkdir -p "$(dirname "$conf")"
    echo "create_main_cluster = false" >"$conf"
fi
export DEBIAN_FRONTEND=noninteractive
{ apt-get update -q && apt-get install -q -y --no-install-recommends -o Dpkg::Options::=--force-confold postgresql; } >&2
found || { echo "Debian's package postgresql could not be installed; see above." >&2; exit 3; }
