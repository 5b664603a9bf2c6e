#!/bin/sh
# Starts a node, and tells it every ten minutes to read its certificate again, which is
# renewed while it runs: it does not look by itself. $REDIS_TLS is what redis-cli is given
# so that it speaks TLS, $TLS_DIR where the files are.
set -eu

renew() {
    # shellcheck disable=SC2086 # one word each
    redis-cli $REDIS_TLS config set tls-cert-file "$TLS_DIR/tls.crt" \
        tls-key-file "$TLS_DIR/tls.key" tls-ca-cert-file "$TLS_DIR/ca.crt" 2>&1
}

(
    # As long as the server is there, which takes this shell's place and number.
    while sleep "${REDIS_RENEW_S:-600}" && kill -0 $$ 2>/dev/null; do
        said=$(renew) || true
        # It goes on with what it had.
        [ "$said" = OK ] || echo "certificate not read again: $said" >&2
    done
) &
exec redis-server "$@"
