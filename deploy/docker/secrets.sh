#!/bin/sh
# Makes the secrets of compose.yaml, once: what is there stays. Keep them with the
# databases: without link-mac no stored link is valid.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets
random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }
make() {
    if [ ! -e "secrets/$1" ]; then
        printf '%s%s\n' "$2" "$(random)" >"secrets/$1"
        # The containers' users read them; the folder keeps this machine's out.
        chmod 0444 "secrets/$1"
    fi
}
make service-token ''
make jwt-hs256 ''
make api-key-mac '1:'
make link-mac '1:'
make slug-key ''
make source-key ''
make visitor-key ''
make grafana-password ''
if [ ! -e .env ]; then
    printf '# Made by secrets.sh: the password of the databases.\nPOSTGRES_PASSWORD=%s\n' "$(random)" >.env
fi
echo "The secrets are in $(pwd)/secrets, and the databases' password in $(pwd)/.env."
