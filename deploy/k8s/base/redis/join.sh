#!/bin/sh
# Makes one cluster of the nodes in $REDIS_NODES (host:port, separated by spaces), with
# $REDIS_REPLICAS replicas for each master; $REDIS_TLS is what redis-cli is given so that it
# speaks TLS, if the nodes do. Does nothing where there is one already, and
# introduces the nodes to each other again where all of their addresses have changed:
# nodes that know only old addresses never find each other by themselves.
set -eu

ask() { # NODE COMMAND..
    node=$1
    shift
    # shellcheck disable=SC2086 # one word each
    redis-cli ${REDIS_TLS:-} -h "${node%:*}" -p "${node##*:}" "$@"
}

address() { # NODE: host:port as host's address, for names are not taken
    echo "$(getent hosts "${1%:*}" | awk '{print $1; exit}'):${1##*:}"
}

field() { # NODE NAME: of CLUSTER INFO
    ask "$1" cluster info | tr -d '\r' | sed -n "s/^$2://p"
}

is_whole() {
    for node in $REDIS_NODES; do
        [ "$(field "$node" cluster_known_nodes)" = "$count" ] || return 1
        [ "$(field "$node" cluster_state)" = ok ] || return 1
        [ "$(field "$node" cluster_slots_ok)" = 16384 ] || return 1
        # That it has heard nothing of another yet shows here first.
        if ask "$node" cluster nodes | grep -Eq 'fail|disconnected|handshake'; then return 1; fi
    done
}

# Again and again, for an introduction may get lost.
introduce() {
    for node in $REDIS_NODES; do
        at=$(address "$node")
        ask "$first" cluster meet "${at%:*}" "${at##*:}" >/dev/null
    done
}

# COMMAND..: every second until it succeeds.
wait_for() {
    tries=0
    until "$@"; do
        tries=$((tries + 1))
        if [ "$tries" -gt 120 ]; then
            echo "not within two minutes: $*" >&2
            exit 1
        fi
        sleep 1
    done
}

answers() { # NODE
    [ "$(ask "$1" ping 2>/dev/null)" = PONG ]
}

count=0
for node in $REDIS_NODES; do
    wait_for answers "$node"
    count=$((count + 1))
    first=${first:-$node}
done

# Whether any node was in a cluster before.
assigned=0
for node in $REDIS_NODES; do
    slots=$(field "$node" cluster_slots_assigned)
    if [ "$slots" -gt "$assigned" ]; then assigned=$slots first=$node; fi
done

if [ "$assigned" -eq 0 ]; then
    addresses=$(for node in $REDIS_NODES; do address "$node"; done)
    # shellcheck disable=SC2086 # one word each
    redis-cli ${REDIS_TLS:-} --cluster create $addresses --cluster-replicas "$REDIS_REPLICAS" --cluster-yes
fi
whole_or_introduced() {
    is_whole && return
    if [ $((tries % 5)) -eq 0 ]; then introduce; fi
    return 1
}
wait_for whole_or_introduced
echo "one cluster of $count nodes"
