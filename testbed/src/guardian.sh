# Cleans up after the owner of a sandbox, however that one ends.
#
# Reads "+ pid signal" when a process (leader of its own group) starts and
# "- pid" when it is gone. The end of the input means that the owner has ended or
# wants an end: everything still recorded is stopped and the folder $1 removed.
# "signal" is how that process likes to be stopped; who is left after two seconds
# is killed.
trap '' HUP INT QUIT TERM

recorded=
while read -r operation pid signal; do
    case $operation in
        +) recorded="$recorded $pid:$signal" ;;
        -)
            rest=
            for entry in $recorded; do
                [ "${entry%%:*}" = "$pid" ] || rest="$rest $entry"
            done
            recorded=$rest
            ;;
    esac
done

# The fields of a process's /proc/pid/stat after its name: state, parent, ..
status_of() {
    status=
    read -r status <"/proc/$1/stat" || return 1
    status=${status##*) }
}

leaders=
for entry in $recorded; do
    leaders="$leaders ${entry%%:*}"
done

# Postgres puts each of its children into a session of its own, so they are
# looked up rather than reached through the group.
children=
for stat in /proc/[0-9]*/stat; do
    candidate=${stat#/proc/}
    candidate=${candidate%/stat}
    status_of "$candidate" || continue
    parent=${status#* }
    case "$leaders " in
        *" ${parent%% *} "*) children="$children $candidate" ;;
    esac
done

for each in $children; do kill -CONT "$each"; done
for entry in $recorded; do
    kill -CONT "-${entry%%:*}"
    kill "-${entry##*:}" "-${entry%%:*}"
done
all="$leaders $children"

any_left() {
    for each in $all; do
        status_of "$each" || continue
        # A zombie is as good as gone: its parent has yet to collect it.
        case $status in
            'Z '*) ;;
            *) return 0 ;;
        esac
    done
    return 1
}
rounds=0
while [ "$rounds" -lt 40 ] && any_left; do
    rounds=$((rounds + 1))
    sleep 0.05
done
for each in $all; do
    kill -KILL "$each"
    kill -KILL "-$each"
done

# A dying process may still have been writing.
rounds=0
while [ "$rounds" -lt 40 ] && [ -e "$1" ]; do
    rounds=$((rounds + 1))
    rm -rf -- "$1" || sleep 0.05
done
