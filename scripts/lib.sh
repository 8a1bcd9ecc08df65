# shellcheck shell=sh disable=SC2034,SC2154,SC2009,SC2030,SC2031
# What the emergency scripts share. Sourced by them, with $scripts naming its directory; never run by itself.
#
# Plain POSIX sh: dash, busybox, bash 3.2, mksh and zsh; GNU or BSD tools; no Python. It uses the same lock, launchers and
# records as updater itself (docs/format.md), so neither surprises the other. It writes beside and renames, and needs no room
# on the disk to go back.

set -u
outer_mask=$(umask) outer_locale=${LC_ALL+=$LC_ALL} outer_room=${TMPDIR+=$TMPDIR}   # for what is started from here
umask 022
LC_ALL=C
export LC_ALL
lock_lent=${UPDATER_LOCK_HELD-}   # by a script that holds the lock and calls another
unset CDPATH UPDATER_LOCK_HELD UPDATER_PROCESS UPDATER_RELEASE UPDATER_TRIAL || :   # a script that the application starts is none of it

# what the scripts ask before they set it: nothing of the kind comes from outside
only='' spared='' ended='' backup='' give_up=0 members='' leads='' j_lost=0

# ---------------------------------------------------------------- what people read

if [ -t 1 ] && [ -z "${NO_COLOR-}" ] && [ "${TERM-dumb}" != dumb ]; then
    red=$(printf '\033[31m') yellow=$(printf '\033[33m') green=$(printf '\033[32m') bold=$(printf '\033[1m') plain=$(printf '\033[0m')
else
    red='' yellow='' green='' bold='' plain=''
fi

say() { printf '%s\n' "$*"; }
good() { printf '  %s%s%s %s\n' "$green" ok "$plain" "$*"; }
warn() { printf '%swarning:%s %s\n' "$yellow" "$plain" "$*" >&2; }
step() { printf '%s%s%s\n' "$bold" "$*" "$plain"; }
problem() { printf '%serror:%s %s\n' "$red" "$plain" "$*" >&2; }
detail() { printf '  %s\n' "$*" >&2; }

# fail CODE WHAT STATE NEXT: the exit codes are those of the command line
fail() {
    problem "$2"
    [ -z "${3-}" ] || detail "$3"
    [ -z "${4-}" ] || detail "Next: $4"
    exit "$1"
}

usage_error() { fail 2 "$1" 'Nothing was changed.' "sh $0 --help"; }

# ask QUESTION: goes on only if a person, or --yes, says so
ask() {
    [ "$yes" = 0 ] || return 0
    [ -t 0 ] || fail 2 "$1 Nobody can answer: the standard input is not a terminal" 'Nothing was changed.' 'run it again with --yes'
    printf '%s%s%s [y/N] ' "$bold" "$1" "$plain"
    read -r answer || answer=
    case $answer in y | Y | yes | Yes | YES) return 0 ;; esac
    say 'Nothing was changed.'
    exit 130
}

# ---------------------------------------------------------------- options that every script has

yes=0 dry_run=0 root=
shifts=0

# common_option "$@": takes the first words if they are an option of all scripts; $shifts says how many
common_option() {
    shifts=1
    case $1 in
        --yes | -y) yes=1 ;;
        --dry-run | -n) dry_run=1 ;;
        --root)
            [ $# -ge 2 ] || usage_error '--root needs a directory'
            root=$2 shifts=2
            [ -n "$root" ] || usage_error '--root is empty'   # an unset variable must not lead to another root
            ;;
        --root=*)
            root=${1#--root=}
            [ -n "$root" ] || usage_error '--root is empty'
            ;;
        --help | -h) usage; exit 0 ;;
        *) shifts=0; return 1 ;;
    esac
}

is_root() { [ -d "$1/releases" ] && { [ -f "$1/updater.toml" ] || [ -d "$1/.updater" ]; }; }

# room_for_shell: some shells put here-documents into files; these go where one can be written, also when /tmp is full
room_for_shell() {
    for place in /dev/shm "${TMPDIR:-/tmp}" /tmp "$own"; do
        if [ -d "$place" ] && [ -w "$place" ] && { printf '%1000s' x >"$place/.tmp-updater-$$"; } 2>/dev/null; then
            TMPDIR=$place TMPPREFIX=$place/.tmp-updater-
            export TMPDIR TMPPREFIX
            rm -f "$place/.tmp-updater-$$"
            return
        fi
        rm -f "$place/.tmp-updater-$$" 2>/dev/null || :
    done
}

# find_root SCRIPT: --root, else the root that the script lies in, else $UPDATER_ROOT, else the nearest directory above
find_root() {
    if [ -n "$root" ]; then
        is_root "$root" || fail 2 "$root is not a root: it has no releases/ beside updater.toml or .updater/" 'Nothing was changed.' 'name the directory that holds releases/: --root DIR'
    else
        home=$(cd -- "$(dirname -- "$1")/.." && pwd -P) || home=
        # a checkout of updater itself has the form of a root: only one with something in it counts before $UPDATER_ROOT
        if is_root "$home" && { [ -d "$home/.updater" ] || [ -L "$home/current" ] || [ -z "${UPDATER_ROOT-}" ]; }; then
            root=$home
        elif [ -n "${UPDATER_ROOT-}" ]; then
            root=$UPDATER_ROOT
            is_root "$root" || fail 2 "UPDATER_ROOT is $root, which is not a root" 'Nothing was changed.' 'name the directory that holds releases/: --root DIR'
        else
            root=$(pwd -P)
            while [ "$root" != / ] && ! is_root "$root"; do root=$(dirname -- "$root"); done
            is_root "$root" || fail 2 'no root here: no releases/ beside updater.toml or .updater/ in this directory or above it' 'Nothing was changed.' 'name the directory that holds releases/: --root DIR'
        fi
    fi
    root=$(cd -- "$root" && pwd -P) || fail 2 "$root cannot be entered" 'Nothing was changed.' 'run it as the user that owns the root'
    own=$root/.updater
    logs=$root/shared/logs
    room_for_shell
}

# quoted TEXT: as one word of the shell, for advice that can be typed
quoted() {
    case $1 in
        '' | *[!A-Za-z0-9_./@%+=:,-]*) printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")" ;;
        *) printf '%s' "$1" ;;
    esac
}

# command_line SCRIPT ARGS...: what to type to run a script of this root
command_line() {
    printf 'sh %s' "$(quoted "$root/scripts/$1")"
    shift
    [ $# -eq 0 ] || printf ' %s' "$@"
}

# is_missing: are data not in their place since a way back was given up, or may they not be? Then $absent says which
is_missing() {
    absent='data are not in their place since a way back was given up'
    if [ -f "$own/missing.json" ] && ! all_back; then
        absent="$absent; which, and where they lie: $own/missing.json"
    elif swap_load "$own/swap.json" && [ "$s_ready" = 1 ] && [ ! -f "$own/journal/$s_id.jsonl" ] && ! move_counts; then   # updater has not come to say so
        if [ "$s_known" = 0 ]; then
            absent="data may not be in their place since a way back was given up; updater recover tells, or see $root/shared/.updater-$s_id"
        elif [ -n "$(missing_lines)" ]; then
            absent="$absent; they lie in $root/shared/.updater-$s_id or below; updater recover tells which"
        else
            return 1
        fi
    else
        return 1
    fi
}

# warn_missing: whatever starts while data are missing begins without them; updater refuses that
warn_missing() {
    ! is_missing || warn "$absent. To put a backup back: $(command_line restore_backup.sh)"
}

# warn_root: what a script starts runs as the one who runs the script
warn_root() {
    [ "$(id -u 2>/dev/null)" = 0 ] || return 0
    # shellcheck disable=SC2046,SC2012
    set -- $(ls -ld "$root")
    [ "$3" = root ] || [ "$3" = 0 ] || warn "you are root, and this root belongs to $3: what is started now will run as root, and $3 cannot stop it. Better: sudo -u $3 sh $(quoted "$root/scripts/$(basename -- "$0")")"
}

# ---------------------------------------------------------------- small tools

has() { command -v "$1" >/dev/null 2>&1; }
nap() { sleep 0.1 2>/dev/null || sleep 1; }
clock() { date -u +%s; }   # not in POSIX, but GNU, BSD and busybox have it
moment() { date -u +%Y-%m-%dT%H:%M:%SZ; }
hex() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }
oneline() { printf '%s' "$*" | tr '\n\r\t' '   ' | tr -d '\000-\037\177'; }
plainly() { tr -d '\000-\010\013-\037\177'; }   # what others wrote, without what a terminal would obey
temporary() { printf '.tmp-%s-%s-%s' "$1" $$ "$(hex 4)"; }   # a name that updater's own tidying knows
flush() { if [ $# -gt 0 ]; then sync "$@" 2>/dev/null || sync; else sync; fi; }   # these files and directories, where sync can

if has sha256sum; then sha_tool=sha256sum; elif has shasum; then sha_tool='shasum -a 256'; else sha_tool=; fi

# sha256: the sum of standard input, in hex; fails without a tool
sha256() {
    [ -n "$sha_tool" ] || return 1
    # shellcheck disable=SC2086
    $sha_tool | cut -c1-64
}

# write FILE [MODE]: standard input becomes the file, whole or not at all, and is on the disk afterwards
write() {
    beside=$(dirname -- "$1")/$(temporary "$(basename -- "$1")")
    if cat >"$beside" && chmod "${2-644}" "$beside" && flush "$beside" && mv -f "$beside" "$1"; then
        flush "$(dirname -- "$1")"
        return 0
    fi
    rm -f "$beside"
    return 1
}

# json TEXT: as a JSON string
json() {
    [ -n "${1-}" ] || { printf 'null'; return; }
    printf '"%s"' "$(oneline "$1" | sed 's/\\/\\\\/g; s/"/\\"/g' | utf8)"
}

utf8() { if has iconv; then iconv -c -f UTF-8 -t UTF-8; else tr '\200-\377' '?'; fi; }   # names on the disk may be any bytes

# json_path PATH, word_path PATH: any bytes, as a JSON string that Python takes for that path, and as a word for printf %b
json_path() {
    case $1 in *[!A-Za-z0-9_./@%+=:,\ -]*) ;; *) printf '"%s"' "$1"; return ;; esac
    printf '%s' "$1" | od -An -v -tu1 | awk '
        { for (i = 1; i <= NF; i++) byte[n++] = $i }
        function character(at,   long, value, k) {   # of UTF-8, as \u with its number; a byte that is none as Python has it
            long = byte[at] < 194 ? 0 : byte[at] < 224 ? 1 : byte[at] < 240 ? 2 : byte[at] < 245 ? 3 : 0
            value = byte[at] - (long == 1 ? 192 : long == 2 ? 224 : 240)
            for (k = 1; k <= long; k++) {
                if (at + k >= n || byte[at + k] < 128 || byte[at + k] > 191) long = 0
                else value = value * 64 + byte[at + k] - 128
            }
            if (long == 2 && (value < 2048 || (value > 55295 && value < 57344)) || long == 3 && (value < 65536 || value > 1114111)) long = 0
            if (!long) printf "\\udc%02x", byte[at]
            else if (value > 65535) printf "\\u%04x\\u%04x", 55296 + int((value - 65536) / 1024), 56320 + value % 1024
            else printf "\\u%04x", value
            return long
        }
        END {
            printf "\""
            for (i = 0; i < n; i++) {
                if (byte[i] == 34 || byte[i] == 92) printf "\\%c", byte[i]
                else if (byte[i] < 32 || byte[i] == 127) printf "\\u%04x", byte[i]
                else if (byte[i] > 127) i += character(i)
                else printf "%c", byte[i]
            }
            printf "\"" }'
}

word_path() {
    case $1 in *[!A-Za-z0-9_./@%+=:,-]*) ;; *) printf '%s' "$1"; return ;; esac
    printf '%s' "$1" | od -An -v -tu1 | awk '
        { for (i = 1; i <= NF; i++) { sign = sprintf("%c", $i); if (sign ~ /[A-Za-z0-9_.\/@%+=:,-]/ && $i < 127) printf "%s", sign; else printf "\\0%03o", $i } }'
}

# field FILE KEY: the value in a file of key=value lines
field() {   # by the shell alone: it is asked some hundred times
    [ -f "$1" ] && [ ! -L "$1" ] || return 0
    { while IFS= read -r line || [ -n "$line" ]; do
        case $line in "$2="*) printf '%s\n' "${line#*=}"; break ;; esac
    done <"$1"; } 2>/dev/null || :
}

is_name() {   # a version or a process: never leads out of its directory
    case $1 in '' | .* | -* | */* | *[[:cntrl:]]*) return 1 ;; esac
}

free_ballast() { rm -f "$own/ballast" 2>/dev/null || :; }   # room for the records of a way back; updater makes it anew

# outside: from here on this subshell is as the one who started the script has it: for what belongs to the application
outside() {
    trap - HUP PIPE
    umask "$outer_mask"
    unset LC_ALL TMPDIR TMPPREFIX || :
    if [ -n "$outer_locale" ]; then LC_ALL=${outer_locale#=}; export LC_ALL; fi
    if [ -n "$outer_room" ]; then TMPDIR=${outer_room#=}; export TMPDIR; fi
}

# limited SECONDS COMMAND...: it is killed after that time, where something here can
limited() {
    if has timeout; then
        timeout -s KILL "$@"
    elif has perl; then
        perl -e 'alarm shift; exec { $ARGV[0] } @ARGV; exit 127' "$@"
    else
        shift
        "$@"
    fi
}

# ---------------------------------------------------------------- who a process is (docs/format.md)

boot() { cat /proc/sys/kernel/random/boot_id 2>/dev/null || sysctl -n kern.bootsessionuuid 2>/dev/null || :; }

# started PID: when it started, as a text that only that process has; fails if there is none, or only a zombie
started() {
    if [ -r /proc/self/stat ]; then
        line=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
        line=${line##*) }
        # shellcheck disable=SC2086
        set -- $line
        case ${1-Z} in Z | X) return 1 ;; esac
        printf '%s' "${20}"
    else
        # shellcheck disable=SC2046
        set -- $(ps -o state=,lstart= -p "$1" 2>/dev/null)
        case ${1-Z} in Z*) return 1 ;; esac
        shift
        printf '%s' "$*"
    fi
}

# identity PID: pid and start in one word
identity() {
    when=$(started "$1") && [ -n "$when" ] || return 1
    printf '%s:%s' "$1" "$(printf '%s' "$when" | tr ' ' '_')"
}

lives() { [ "$(identity "${1%%:*}" 2>/dev/null)" = "$1" ]; }   # lives IDENTITY

any_lives() {
    for one in "$@"; do if lives "$one"; then return 0; fi; done
    return 1
}

root_mark() {   # names this root beyond doubt, as device:inode; without a stat the inode must do
    found=$(stat -c %d:%i "$root" 2>/dev/null) || found=$(stat -f %d:%i "$root" 2>/dev/null) || found=
    case $found in
        *[!0-9:]* | '')
            # shellcheck disable=SC2046
            set -- $(ls -di "$root")
            found=$1
            ;;
    esac
    printf '%s' "$found"
}

is_ours() {   # was a record with mark $1 written in this root? one without a device, or without a mark, is believed
    mine=$(root_mark)
    case $1 in
        '' | "$mine") return 0 ;;
        *:*) case $mine in *:*) return 1 ;; esac ;;
    esac
    [ "${1##*:}" = "${mine##*:}" ]
}

# recorded FILE: the identity that a record (pid file, lock.owner) names, if that very process lives and is ours
recorded() {
    pid=$(field "$1" pid)
    case $pid in '' | 0 | 1 | *[!0-9]*) return 1 ;; esac
    [ "$(field "$1" boot)" = "$(boot)" ] && is_ours "$(field "$1" root)" || return 1
    now=$(identity "$pid") || return 1
    [ "$now" = "$pid:$(field "$1" start | tr ' ' '_')" ] || return 1
    printf '%s' "$now"
}

# ---------------------------------------------------------------- the lock

# flock_fd FD: hold flock(2) on an open descriptor without waiting; 0 held, 1 somebody else holds it, 2 no tool for it, else it
# cannot be held there (busybox cannot tell that from 1)
flock_fd() {
    if has flock; then
        eval "flock -n $1 $1>&$1" 2>/dev/null
    elif has perl; then
        eval "perl -e 'use Errno; use Fcntl qw(:flock); open(my \$f, \">&=\", $1) or open(\$f, \"<&=\", $1) or exit 2; exit(flock(\$f, LOCK_EX | LOCK_NB) ? 0 : \$!{EWOULDBLOCK} ? 1 : 3)' $1>&$1" 2>/dev/null
    else
        return 2
    fi
}

holder() {   # who holds the lock by its own words, for people; fails if nobody says so
    who=$(recorded "$own/lock.owner") || return 1
    printf '%s (pid %s, since %s)' "$(field "$own/lock.owner" operation)" "${who%%:*}" "$(field "$own/lock.owner" since)"
}

# try_lock: 0 held, 1 somebody holds it, 2 this machine has no tool to hold it with
try_lock() {
    { mkdir -p "$own" && true >>"$own/lock"; } 2>/dev/null ||
        fail 3 "cannot open the lock $own/lock" 'Nothing was changed.' 'run it as the user that owns the root; see whether the disk is writable: df, mount, dmesg'
    exec 9>>"$own/lock" 8<"$root"
    flock_fd 9
    locked=$?
    if [ $locked -eq 0 ]; then
        flock_fd 8
        [ $? -ne 1 ] || locked=1   # a filesystem on which a directory cannot be locked (some networks' ones) does without
    fi
    [ $locked -eq 0 ] || exec 9>&- 8<&-
    return $locked
}

is_lent() {   # does the script that called this one hold the lock for it?
    [ -n "$lock_lent" ] && [ "$lock_lent" = "$PPID" ] && [ "$(field "$own/lock.owner" pid)" = "$PPID" ] &&
        recorded "$own/lock.owner" >/dev/null
}

# take_lock OPERATION: hold the root's lock until the script ends, or end with exit code 6 and say who holds it
take_lock() {
    if is_lent; then
        trap '' HUP
        trap : PIPE
        trap interrupted INT TERM
        mkdir -p "$own/run" "$own/marks" "$own/journal/closed" "$logs" 2>/dev/null || :
        return 0
    fi
    until_=$(($(clock) + 2))
    while :; do
        try_lock
        case $? in
            0) break ;;
            2)
                who=$(holder) && lock_held "$who"
                warn 'neither flock nor perl is here, so the lock cannot be held: start no other updater command meanwhile'
                break
                ;;
        esac
        who=$(holder) && lock_held "$who"
        end_orphan || :
        [ "$(clock)" -lt "$until_" ] || lock_held ''
        nap
    done
    umask 022
    # for people, as updater writes it; a full disk keeps nobody from going back
    beside=$own/$(temporary lock.owner)
    if {
        printf 'pid=%s\nstart=%s\nboot=%s\n' $$ "$(started $$)" "$(boot)"
        printf 'operation=%s\nsince=%s\nroot=%s\n' "$1" "$(moment)" "$(root_mark)"
    } 2>/dev/null >"$beside"; then mv -f "$beside" "$own/lock.owner"; else rm -f "$beside"; fi
    trap 'release_lock' EXIT
    # A terminal that goes away, or the application whose terminal it was, ends nothing half-way, nor the tools at
    # work just then; outside() takes that off again.
    trap '' HUP
    trap : PIPE
    trap interrupted INT TERM
    mkdir -p "$own/run" "$own/marks" "$own/journal/closed" "$logs" 2>/dev/null || :
}

interrupted() {
    problem 'interrupted before its end'
    detail "In service: $(in_service || printf nothing); the application may be stopped."
    detail "Next: run it again, it goes on from here: $(command_line "$(basename -- "$0")")"
    exit 130
}

release_lock() { [ "$(field "$own/lock.owner" pid)" != $$ ] || rm -f "$own/lock.owner"; }

lock_held() {
    if [ -n "$1" ]; then
        fail 6 "another operation is at work on this root: $1" 'Nothing was changed.' "wait for it, or end it: $(command_line unlock_update.sh)"
    fi
    fail 6 'another process holds a lock on this root and has not said what for' 'Nothing was changed.' "see who it is (fuser $(quoted "$own/lock"), or lsof), end it, then run this again"
}

# end_orphan: end what keeps the lock of an updater that died: what is left of its child's session, that one dead or alive, if it
# runs in this root: the record may be a copy of another root's
end_orphan() {
    child=$(field "$own/run/child" pid)
    case $child in '' | 0 | 1 | *[!0-9]*) return 1 ;; esac
    [ "$(field "$own/run/child" boot)" = "$(boot)" ] || return 1
    if now=$(identity "$child"); then
        [ "$now" = "$child:$(field "$own/run/child" start | tr ' ' '_')" ] || return 1
    fi
    for one in $(table | sed -n "s/^ *\([0-9][0-9]*\)  *[^Z ][^ ]*  *[0-9]*  *$child *\$/\1/p"); do
        if runs_in=$(readlink "/proc/$one/cwd" 2>/dev/null); then
            case ${runs_in% (deleted)}/ in "$root"/*) ;; *) continue ;; esac
        elif [ -r /proc/self/stat ] || [ -z "$now" ]; then   # elsewhere than on Linux only what is surely that child is ended
            continue
        fi
        kill -9 "$one" 2>/dev/null
    done
}

# ---------------------------------------------------------------- releases

# version_of LINK: the release that a link names, if it names one directly below releases/
version_of() {
    [ -L "$1" ] || return 1
    target=$(readlink "$1" 2>/dev/null) || target=$(ls -ld "$1" | sed 's/.* -> //')
    target=${target%/} name=${target##*/}
    case $target in
        "releases/$name" | "../releases/$name" | "$root/releases/$name") ;;
        */*) [ "$(cd -- "$(dirname -- "$1")" && cd -- "${target%/*}/" 2>/dev/null && pwd -P)" = "$(cd -- "$root/releases" && pwd -P)" ] || return 1 ;;
        *) return 1 ;;
    esac
    is_name "$name" && printf '%s' "$name"
}

in_service() { version_of "$root/current"; }
sealed() { is_name "$1" && [ -d "$root/releases/$1" ] && [ ! -L "$root/releases/$1" ] && [ -f "$root/releases/$1/.release/release.json" ]; }

installed() {   # the sealed releases, one on each line
    for place in "$root"/releases/*; do
        if sealed "${place##*/}"; then say "${place##*/}"; fi
    done
}

is_good() { [ -f "$own/marks/$1.good" ]; }
is_bad() { [ -f "$own/marks/$1.bad" ]; }

# place_of VERSION: its place in the order of good releases; fails if it never was good
place_of() {
    is_good "$1" || return 1
    seq=$(field "$own/marks/$1.good" seq)
    case ${seq#-} in '' | *[!0-9]*) seq=-2147483648 ;; esac
    printf '%s' "$seq"
}

# previous_good CURRENT: the last release that was good before it, from the records; else the latest good one of the others
previous_good() {
    here=$(place_of "${1:-none}") || here=
    earlier='' earlier_at='' latest='' latest_at=''
    for place in "$root"/releases/*; do
        version=${place##*/}
        [ "$version" != "$1" ] && sealed "$version" && ! is_bad "$version" || continue
        at=$(place_of "$version") || continue
        if [ -z "$latest" ] || [ "$at" -gt "$latest_at" ]; then latest=$version latest_at=$at; fi
        if [ -n "$here" ] && [ "$at" -lt "$here" ] && { [ -z "$earlier" ] || [ "$at" -gt "$earlier_at" ]; }; then
            earlier=$version earlier_at=$at
        fi
    done
    if [ -n "${earlier:-$latest}" ]; then
        printf '%s' "${earlier:-$latest}"
        return
    fi
    for link in previous good; do   # marks may be gone, and the links be there
        version=$(version_of "$own/$link") || continue
        if [ "$version" != "$1" ] && sealed "$version" && ! is_bad "$version"; then printf '%s' "$version"; return; fi
    done
    return 1
}

list_releases() {
    here=$(in_service) || here=
    for version in $(installed); do
        state=installed
        if is_good "$version"; then state=good; fi
        if is_bad "$version"; then state=bad; fi
        [ "$version" != "$here" ] || state="$state, in service"
        printf '    %-24s %s\n' "$version" "$state"
    done
}

# verified VERSION: 0 as published, 1 changed (which files is told), 2 no tool, or no sums, to tell by
verified() {
    sums=$root/releases/$1/.release/SHA256SUMS
    [ -n "$sha_tool" ] && [ -f "$sums" ] || return 2
    [ -s "$sums" ] || return 0
    # shellcheck disable=SC2086
    told=$(cd -- "$root/releases/$1" && $sha_tool -c .release/SHA256SUMS 2>&1) && return 0
    printf '%s\n' "$told" | sed -n 's/: FAILED.*//p' | head -n 5
    return 1
}

refuse_odd_current() {   # something that is no link stands at current: never replaced
    if [ -e "$root/current" ] && [ ! -L "$root/current" ]; then
        fail 3 "$root/current is not a symlink but a real directory or file; updater made no such thing and will not remove it" 'Nothing was changed.' "look at what is in it, move it elsewhere (cd $(quoted "$root") && mv current current.aside), and run this again"
    fi
}

# swap_link NAME TARGET DIRECTORY: NAME in the directory names TARGET from here on, in one atomic step
swap_link() {
    if [ -e "$3/$1" ] && [ ! -L "$3/$1" ]; then return 1; fi
    # A link of the right name, moved into the directory: `mv` then renames it over the old one, with GNU's, BSD's and busybox's.
    # `ln -sfn` removes the old one first, and `mv` onto a link to a directory would move into that.
    aside=$3/$(temporary "$1")
    mkdir -m 700 "$aside" && ln -s "$2" "$aside/$1" && mv -f "$aside/$1" "$3/" || { rm -rf "$aside"; return 1; }
    rmdir "$aside"
    flush
}

put_in_service() {
    swap_link current "releases/$1" "$root" || return 1
    if [ -L "$root/VERSION" ] || [ ! -e "$root/VERSION" ]; then swap_link VERSION current/VERSION "$root" || :; fi
}

# ---------------------------------------------------------------- updater.toml, as far as a shell can read it

# toml FILE SECTION KEY: the strings, numbers and truths that KEY of [SECTION] is or lists, one on each line. Without KEY every pair of
# the section, with a tab between. Fails with 1 if there is nothing, with 2 if it is written in a way that is not understood
toml() {
    [ -f "$1" ] || return 1
    awk -v section="$2" -v wanted="${3-}" '
        function stop(code) { status = code; stopped = 1; exit }
        function strings(text,   found, sign, at) {   # reads what follows; rest is what is left of the text
            found = ""; depth = 0
            for (;;) {
                sub(/^[ \t\r,]+/, "", text)
                sign = substr(text, 1, 1)
                if (sign == "" || sign == "#") {
                    if (!depth) return found
                    if ((getline text) <= 0) stop(2)
                } else if (sign == "[") { depth++; text = substr(text, 2) }
                else if (sign == "]" && depth) { depth--; text = substr(text, 2) }
                else if (sign == "\"" || sign == "\047") {
                    at = index(substr(text, 2), sign)
                    if (!at || (sign == "\"" && substr(text, 2, at - 1) ~ /\\/) || substr(text, 1, 3) == sign sign sign) stop(2)
                    found = found substr(text, 2, at - 1) "\n"; text = substr(text, at + 2)
                } else if (match(text, /^[A-Za-z0-9_.+-]+/)) { found = found substr(text, 1, RLENGTH) "\n"; text = substr(text, RLENGTH + 1) }
                else stop(2)
            }
        }
        BEGIN { status = 1; here = section == "" }
        /^[ \t]*\[/ {
            line = $0; sub(/^[ \t]*/, "", line); sub(/[ \t]*(#.*)?\r?$/, "", line); gsub(/[ \t]/, "", line)
            here = (line == "[" section "]"); sections = 1
            next
        }
        /^[ \t\r]*(#|$)/ { next }
        {
            line = $0; sub(/^[ \t]*/, "", line)
            sign = substr(line, 1, 1)
            if (sign == "\"" || sign == "\047") {
                at = index(substr(line, 2), sign)
                if (!at) { if (here) stop(2); next }
                name = substr(line, 2, at - 1); line = substr(line, at + 2); quoted = 1
                if (name ~ /\\/ && here) stop(2)
            } else if (match(line, /^[A-Za-z0-9_.-]+/)) { name = substr(line, 1, RLENGTH); line = substr(line, RLENGTH + 1); quoted = 0 }
            else { if (here) stop(2); next }
            sub(/^[ \t]*/, "", line)
            # the same said in another way: section.key = value, or section = { ... }
            if (!here && !sections && (name == section || index(name, section ".") == 1)) stop(2)
            if (substr(line, 1, 1) != "=") { if (here) stop(2); next }
            line = substr(line, 2)
            if (here && (wanted == "" || name == wanted)) {
                if (!quoted && name ~ /\./) stop(2)
                value = strings(line)
                status = 0
                if (wanted == "") printf "%s\t%s", name, value
                else { printf "%s", value; exit }
            } else if (here && line ~ /^[ \t]*\[/) strings(line)
        }
        END { exit status }
    ' "$1"
}

has_table() {   # in whatever form TOML has for it
    awk -v name="$1" '
        { line = $0; gsub(/[ \t"\047]/, "", line) }
        line ~ "^\\[\\[?" name "[].]" || (!inside && line ~ "^" name "[.=]") { found = 1; exit }
        line ~ /^\[/ { inside = 1 }
        END { exit !found }' "$root/updater.toml" 2>/dev/null
}

# ---------------------------------------------------------------- history and log

log() {   # a line in update.log; never fails
    if [ ! -e "$logs/update.log" ] || [ -f "$logs/update.log" ]; then
        { printf '%s %s\n' "$(moment)" "$(oneline "$*")" >>"$logs/update.log"; } 2>/dev/null || :
    fi
}

new_id() {   # as updater names its deployments: never before an earlier one, whatever the clock says
    latest=$(ls "$own/journal" "$own/journal/closed" 2>/dev/null | sed -n 's/^\([0-9]\{8\}T[0-9]\{6\}\)-[0-9a-f]\{6\}\.jsonl$/\1/p' | sort | tail -n 1)
    now=$(date -u +%Y%m%dT%H%M%S)
    if [ -n "$latest" ] && [ "$(printf '%s\n%s\n' "$latest" "$now" | sort | tail -n 1)" = "$latest" ]; then now=$latest; fi
    printf '%s-%s' "$now" "$(hex 3)"
}

# record ID KIND FROM TO OUTCOME STARTED TEXT [ERROR] [BACKUP]: one record of the history, in the form that updater reads
record() {
    error=null
    [ -z "${8-}" ] || error="{\"message\": $(json "$8")}"
    printf '{"backup": null, "configuration": null, "data": null, "ended": "%s", "error": %s, "from": %s, "id": "%s", "kind": "%s", "origin": "script", "outcome": "%s", "phases": [], "reason": "", "recovered": false, "restored": %s, "started": "%s", "text": %s, "to": %s, "user": %s, "wanted": null, "warnings": []}' \
        "$(moment)" "$error" "$(json "$3")" "$1" "$2" "$5" "$(json "${9-}")" "$6" "$(json "$7")" "$(json "$4")" "$(json "$(id -un 2>/dev/null)")"
}

# add_to_history RECORD ID: one more line of the JSON array; a record that is there already is not added again. Fails if it cannot
# be written
add_to_history() {
    file=$logs/update_history.json
    if [ -e "$file" ] && [ ! -f "$file" ]; then warn "$file is not a file: this was not written into the history"; return 1; fi
    if grep -qE "\"id\": ?\"$2\"" "$file" 2>/dev/null; then return 0; fi
    mkdir -p "$logs" 2>/dev/null
    beside=$logs/$(temporary update_history.json)
    # No pipe: what cannot be read whole must not take its place.
    if {
        { if [ -s "$file" ]; then history_opened "$file"; else say '['; fi; } >"$beside" && printf '%s\n]\n' "$1" >>"$beside" &&
            chmod 644 "$beside" && flush "$beside" && mv -f "$beside" "$file"
    } 2>/dev/null; then
        flush "$logs"
    else
        rm -f "$beside"
        warn "the history is as it was: it could not be read, or not be written (a full disk?). What belongs there: $1"
        return 1
    fi
}

# history_opened FILE: everything but the closing bracket, a comma behind the last record; whoever laid the array out
history_opened() {
    awk '
        { sub(/[ \t\r]+$/, "") }
        $0 == "" { next }
        { if (lines > 1) print before; before = last; last = $0; lines++ }
        END {
            if (last ~ /^[ \t]*\]$/ || last ~ /^[ \t]*\[.*\]$/ || last ~ /\}[ \t]*\]$/) sub(/[ \t]*\]$/, "", last)
            if (last == "" && lines > 1) { last = before; lines = 1 }
            if (lines > 1) print before
            sub(/[ \t]*,$/, "", last)
            if (last ~ /^[ \t]*\[?$/) print "["; else print last ","
        }' "$1"
}

# ---------------------------------------------------------------- the rest of what is shared

# shellcheck source=scripts/lib_processes.sh
. "$scripts/lib_processes.sh"
# shellcheck source=scripts/lib_move.sh
. "$scripts/lib_move.sh"
# shellcheck source=scripts/lib_journal.sh
. "$scripts/lib_journal.sh"
