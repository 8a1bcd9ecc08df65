# shellcheck shell=bash disable=SC2154,SC2034
# What the tests of the emergency scripts share. test_matrix.py runs them and sets:
#
#   UNDER      the shell that the scripts run under, a command line
#   TOOLS      the directory that is their whole PATH; no Python is in it
#   TEMPLATES  the roots that templates.py made
#   UPDATER    the real command line, by its full path
#   ASKED      "status" asks it for no more than that, where another shell has asked for all

setup() {
    scratch=$BATS_TEST_TMPDIR tools=$TOOLS
    root="$scratch/it's a root"   # every root has a space and a quote in its path
    with=()
}

teardown() {
    end_below "$scratch"
    if [ -n "${mounted-}" ]; then umount -l "$mounted"; fi
}

# end_below DIR: every process that runs in it
end_below() {
    local place pids
    pids=$(find /proc -maxdepth 2 -path '/proc/[0-9]*/cwd' -lname "$1*" 2>/dev/null | cut -d/ -f3)
    # shellcheck disable=SC2086
    [ -z "$pids" ] || kill -9 $pids 2>/dev/null || :
}

# fresh [TEMPLATE]: $root is a copy of a template, as if it had been made there
fresh() {
    mkdir -p "$root"
    cp -a "$TEMPLATES/${1:-good}/." "$root/"
    local journal first body mark
    mark=$(stat -c %d:%i "$root")
    for journal in "$root"/.updater/journal/*.jsonl; do
        [ -f "$journal" ] || continue
        first=$(head -n 1 "$journal")
        body=$(printf '%s' "${first#* }" | sed "s|\"place\":\"[^\"]*\"|\"place\":\"$root\"|; s/\"root\":\"[0-9:]*\"/\"root\":\"$mark\"/")
        {
            printf '%s %s\n' "$(printf '%s' "$body" | sha256sum | cut -c1-16)" "$body"
            tail -n +2 "$journal"
        } >"$scratch/journal"
        cp "$scratch/journal" "$journal"
    done
}

# start VERSION: its processes run, started by their launchers as anybody may do it
start() {
    local name
    for name in bot idle; do
        setsid setsid env -i PATH="$PATH" sh "$root/.updater/launchers/$1/$name" </dev/null >/dev/null 2>&1 3>&-
    done
    eventually living bot "$1"
    eventually living idle "$1"
    eventually [ -e "$root/shared/data/beat" ]
}

# script NAME ARGUMENTS...: run one as a person would at night: a bare environment, from elsewhere, nobody at the keyboard
script() {
    # shellcheck disable=SC2086
    (cd / && exec env -i PATH="$tools" HOME="$scratch" "${with[@]}" $UNDER "$root/scripts/$1" "${@:2}" </dev/null 3>&-)
}

# ends CODE COMMAND...: it ends with that exit code; $output is what it said
ends() {
    run "${@:2}"
    [ "$status" -eq "$1" ] || { printf '%s\n' "exit code $status, not $1: ${*:2}" "$output"; return 1; }
    # a shell that complains is a defect, whatever the exit code
    case $output in
        *'not found'* | *'syntax error'* | *'No such file or directory'* | *'unexpected operator'* | *'/proc/'*)
            printf '%s\n' "complaints of a shell: ${*:2}" "$output"
            return 1
            ;;
    esac
}

says() {   # says WORDS...: each of them is in $output
    local words
    for words in "$@"; do
        [[ $output == *"$words"* ]] || { printf '%s\n' "not said: $words" "$output"; return 1; }
    done
}

silent_on() { [[ $output != *"$1"* ]] || { printf '%s\n' "said: $1" "$output"; return 1; }; }

eventually() {   # eventually COMMAND...: within some seconds
    local deadline=$((SECONDS + 15))
    until "$@"; do
        [ $SECONDS -lt $deadline ] || { echo "not within 15 s: $*"; return 1; }
        sleep 0.05
    done
}

pid_of() { sed -n 's/^pid=//p' "$root/.updater/run/$1.pid" 2>/dev/null; }

alive() { [ -r "/proc/$1/stat" ] && ! grep -q ') [ZX] ' "/proc/$1/stat" 2>/dev/null; }

gone() { if alive "$1"; then echo "$1 lives"; return 1; fi; }

living() {   # living PROCESS VERSION
    local pid
    pid=$(pid_of "$1")
    [ -n "$pid" ] && alive "$pid" && grep -qx "release=$2" "$root/.updater/run/$1.pid"
}

# in_service VERSION: by the link, relative as it always is, and by VERSION
in_service() {
    [ "$(readlink "$root/current")" = "releases/$1" ] || { echo "current: $(readlink "$root/current")"; return 1; }
    [ "v$(cat "$root/VERSION")" = "$1" ]
}

# runs VERSION: in service, both processes live, and they are as free as the real updater would have started them
runs() {
    local name pid
    in_service "$1"
    for name in bot idle; do
        living "$name" "$1" || { echo "$name of $1 does not run"; return 1; }
        pid=$(pid_of $name)
        [ "$(readlink "/proc/$pid/cwd")" = "$root/releases/$1" ]
        if ls -l "/proc/$pid/fd" | grep -e '/\.updater/lock' -e "-> $root\$" -e ' [0-9] -> pipe:'; then echo "$name holds what is not its own"; return 1; fi
        [ $((0x$(sed -n 's/^SigIgn:[[:space:]]*//p' "/proc/$pid/status") & 2)) = 0 ] || { echo "$name ignores SIGINT"; return 1; }
    done
}

stopped() { [ -z "$(find /proc -maxdepth 2 -path '/proc/[0-9]*/cwd' -lname "$root/releases/*" 2>/dev/null)" ]; }

tidy() {   # nothing is left over
    local left
    left=$(find "$root" -name '.tmp-*' -o -path '*/.updater/journal/*.jsonl' ! -path '*/closed/*' -o -name lock.owner -o -name emergency)
    [ -z "$left" ] || { echo "left over: $left"; return 1; }
}

# agrees VERSION [LAST]: the real command line finds nothing to mend, and tells the same
agrees() {
    if [ "${ASKED-}" != status ]; then
        ends 0 "$UPDATER" --root "$root" recover
        says 'nothing to recover'
    fi
    ends 0 "$UPDATER" --root "$root" status
    says "in service  $1"
    in_service "$1"
    [ -z "${2-}" ] || says "$2"
    ids=$(sed -n 's/.*"id": *"\([^"]*\)".*/\1/p' "$root/shared/logs/update_history.json")
    [ "$(printf '%s\n' "$ids" | sort | uniq -d)" = '' ] || { echo "recorded twice: $ids"; return 1; }
    if [ "${ASKED-}" != status ]; then ends 0 "$UPDATER" --root "$root" history; fi
}

# listing: everything below the root, with what would change if somebody wrote
listing() { find "$root" -printf '%p %y %s %m %T@ %C@ %l\n' | sort; }

# unchanged CODE COMMAND...: it ends so, and the root is as it was
unchanged() {
    local before
    before=$(listing)
    ends "$@"
    diff <(printf '%s\n' "$before") <(listing)
}

# without TOOL...: from here on these are not on the PATH
without() {
    local tool
    cp -a "$tools" "$scratch/tools"
    tools=$scratch/tools
    for tool in "$@"; do rm -f "${tools:?}/$tool"; done
}

# owner PID OPERATION: lock.owner says that this process holds the lock
owner() {
    local stat
    read -r stat <"/proc/$1/stat"
    # shellcheck disable=SC2086
    set -- "$1" "$2" ${stat##*) }
    {
        printf 'pid=%s\nstart=%s\nboot=%s\n' "$1" "${22}" "$(cat /proc/sys/kernel/random/boot_id)"
        printf 'operation=%s\nsince=%s\nroot=%s\n' "$2" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$(stat -c %d:%i "$root")"
    } >"$root/.updater/lock.owner"
}
