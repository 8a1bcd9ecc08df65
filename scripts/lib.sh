# shellcheck shell=sh disable=SC2034,SC2009,SC2030,SC2031
# What the emergency scripts share. Sourced by them, never run by itself.
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
    trap : PIPE   # who reads what is told (`| tee`) may be gone: the way back must not end with him
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

# ---------------------------------------------------------------- processes

table() {   # every living process: pid, state, parent, session (elsewhere than on Linux its group)
    if [ -r /proc/self/stat ]; then
        cat /proc/[0-9]*/stat 2>/dev/null | sed -n 's/^\([0-9][0-9]*\) (.*) \([A-Za-z]\) \([0-9]*\) [0-9-]* \([0-9-]*\) .*/\1 \2 \3 \4/p'
    else
        ps -axo pid=,state=,ppid=,pgid=
    fi
}

environment_of() {   # the environment of a process, one variable on each line
    if [ -r /proc/self/environ ]; then
        { tr '\000' '\n' <"/proc/$1/environ"; } 2>/dev/null   # it may be gone, and the shell would say so
    else
        ps -Eww -o command= -p "$1" 2>/dev/null | sed 's/ \([A-Z_][A-Z_]*=\)/\
\1/g'
    fi
}

with_mark() {   # pids of processes that have a variable of this name
    if [ -r /proc/self/environ ]; then
        if printf 'a\000b' | grep -qF b 2>/dev/null; then
            grep -lsF "$1=" /proc/[0-9]*/environ 2>/dev/null | sed 's|^/proc/||; s|/environ$||'
        elif has strings; then   # busybox's grep sees nothing behind a NUL
            strings -f /proc/[0-9]*/environ 2>/dev/null | sed -n "s|^/proc/\\([0-9]*\\)/environ: $1=.*|\\1|p"
        else
            for one in /proc/[0-9]*; do
                one=${one#/proc/}
                if environment_of "$one" | grep -q "^$1="; then say "$one"; fi
            done
        fi
    else
        ps -axEww -o pid=,command= 2>/dev/null | grep -F " $1=" | sed 's/^ *\([0-9]*\) .*/\1/'
    fi
}

same_directory() { [ -d "$1" ] && [ "$(cd -- "$1" && pwd -P)" = "$root" ]; }

spare() {   # sets $spared: this script, what started it, and deployments, whosever they are
    spared="$$ $(with_mark UPDATER_WORKER | tr '\n' ' ')"
    leaders=
    for file in "$own"/run/*.pid; do leaders="$leaders $(field "$file" pid)"; done
    above=$$ rows=$(table)
    while [ -n "$above" ] && [ "$above" -gt 1 ]; do
        above=$(printf '%s\n' "$rows" | sed -n "s/^ *$above  *[^ ]*  *\([0-9]*\) .*/\1/p" | head -n 1)
        case " $leaders " in *" $above "*) break ;; esac
        spared="$spared $above"
    done
}

# marked: the processes of this root by what their launcher left in their environment: "pid process release"
marked() {
    for pid in $(with_mark UPDATER_PROCESS); do
        case " $spared " in *" $pid "*) continue ;; esac
        variables=$(environment_of "$pid") || continue
        case "
$variables" in *"
UPDATER_WORKER="*) continue ;; esac
        process=$(printf '%s\n' "$variables" | sed -n 's/^UPDATER_PROCESS=//p' | head -n 1)
        release=$(printf '%s\n' "$variables" | sed -n 's/^UPDATER_RELEASE=//p' | head -n 1)
        named=$(printf '%s\n' "$variables" | sed -n 's/^UPDATER_ROOT=//p' | head -n 1)
        is_name "$process" && is_name "$release" && lives "$(identity "$pid")" || continue
        # Where it runs tells best, since that moves with a root and is not copied with it; then the path that was its root's.
        runs_in=$(readlink "/proc/$pid/cwd" 2>/dev/null) || runs_in=
        case ${runs_in% (deleted)}/ in
            "$root/releases/$release/"*) ;;
            */releases/"$release"/*)
                other=${runs_in%%/releases/"$release"*}
                [ ! -f "$other/updater.toml" ] && same_directory "$named" || continue
                ;;
            *) same_directory "$named" || continue ;;
        esac
        say "$pid $process $release"
    done
}

# living: every process of this root, leaders first by their pid files: "pid process release"
living() {
    [ -n "${spared-}" ] || spare
    for file in "$own"/run/*.pid; do
        [ -f "$file" ] || continue
        one=$(recorded "$file") || continue
        process=${file##*/} process=${process%.pid}
        say "${one%%:*} $process $(field "$file" release)"
    done
    marked
}

# family PID...: these, their sessions and everything below them, without what is spared and what is below that only
family() {
    table | awk -v tops="$*" -v never="$spared" '
        BEGIN { n = split(tops, top, " "); for (i = 1; i <= n; i++) { taken[top[i]] = 1; leader[top[i]] = 1 }
                n = split(never, no, " "); for (i = 1; i <= n; i++) spared[no[i]] = 1 }
        $2 !~ /^[ZX]/ { parent[$1] = $3; session[$1] = $4 }
        END {
            do {
                more = 0
                for (pid in parent)
                    if (!(pid in taken) && !(pid in spared) && ((parent[pid] in taken) || (session[pid] in leader))) {
                        taken[pid] = 1; more = 1
                    }
            } while (more)
            for (pid in taken) if ((pid in parent) && !(pid in spared)) print pid
        }'
}

# gather [RELEASE]: sets $members, the identities of everything that belongs to the root (and runs from that release), and
# $leads, those of the leaders
gather() {
    members='' leads='' tops=''
    for pid in $(living | while read -r pid process release; do
        if [ -z "${1-}" ] || [ "$release" = "$1" ]; then say "$pid"; fi
    done | sort -u); do
        case " $spared " in *" $pid "*) ;; *) tops="$tops $pid" ;; esac
    done
    [ -n "$tops" ] || return 0
    # shellcheck disable=SC2086
    for pid in $(family $tops); do
        one=$(identity "$pid") && members="$members $one"
    done
    for file in "$own"/run/*.pid; do
        one=$(recorded "$file") || continue
        case " $members " in *" $one "*) leads="$leads $one" ;; esac
    done
}

# launcher_says RELEASE PROCESS KEY: the words behind a comment of a launcher
launcher_says() { sed -n "s/^# $3: //p" "$own/launchers/$1/$2" 2>/dev/null; }

note_stopping() {   # noted before and after the polite signal, as updater does: nobody asks twice
    { sed '/^stopping=/d' "$1"; say "stopping=$2"; } >"$1.$$" 2>/dev/null && mv -f "$1.$$" "$1" 2>/dev/null || rm -f "$1.$$"
}

# stop_processes [RELEASE]: politely, then firmly, everything; fails if something is still there, or is another user's
stop_processes() {
    of_release=${1-}
    spare
    gather "${1-}"
    [ -n "$members" ] || { forget_dead; return 0; }
    for one in $leads; do
        kill -0 "${one%%:*}" 2>/dev/null || { problem "pid ${one%%:*} belongs to another user, and you may not end it"; return 1; }
    done
    patience=1
    for file in "$own"/run/*.pid; do
        one=$(recorded "$file") || continue
        case " $leads " in *" $one "*) ;; *) continue ;; esac
        process=${file##*/} process=${process%.pid}
        # shellcheck disable=SC2046
        set -- $(launcher_says "$(field "$file" release)" "$process" stop)
        case ${2-} in '' | *[!0-9.]*) seconds=20 ;; *) seconds=${2%%.*} ;; esac
        [ "${seconds:-1}" -le "$patience" ] || patience=$seconds
        if [ "$(field "$file" stopping)" != sent ]; then
            note_stopping "$file" asked
            lives "$one" && kill -s "${1:-TERM}" "${one%%:*}" 2>/dev/null
            note_stopping "$file" sent
        fi
    done
    deadline=$(($(clock) + patience + 1))
    # shellcheck disable=SC2086
    while any_lives $leads && [ "$(clock)" -lt "$deadline" ]; do nap; done
    for one in $members; do   # what a leader left behind is asked in its turn
        case " $leads " in *" $one "*) continue ;; esac
        lives "$one" && kill -TERM "${one%%:*}" 2>/dev/null
    done
    # shellcheck disable=SC2086
    while any_lives $members && [ "$(clock)" -lt "$deadline" ]; do nap; done
    kill_members "$of_release"
}

kill_members() {   # kill_members [RELEASE]: what is killed may just have started another
    tries=0
    while :; do
        left=
        for one in $members; do
            if lives "$one" && kill -0 "${one%%:*}" 2>/dev/null; then left="$left $one"; fi
        done
        gather "${1-}"
        for one in $members; do
            case " $left " in *" $one "*) ;; *) left="$left $one" ;; esac
        done
        members=$left
        [ -n "$left" ] || { forget_dead; return 0; }
        [ $tries -lt 50 ] || { problem "still there after SIGKILL: pid$(for one in $left; do printf ' %s' "${one%%:*}"; done)"; return 1; }
        for one in $left; do lives "$one" && kill -9 "${one%%:*}" 2>/dev/null; done
        tries=$((tries + 1))
        nap
    done
}

forget_dead() {   # pid files that name nothing that lives
    for file in "$own"/run/*.pid; do
        [ -f "$file" ] || continue
        recorded "$file" >/dev/null || rm -f "$file"
    done
}

# names_of RELEASE: its processes: those that have a launcher and that the configuration it last ran with names
names_of() {
    bound=$own/configurations/$1.toml listed=
    if [ -f "$bound" ]; then listed=$(sed -n '1s/^#.*"processes": \[\(.*\)\].*$/,\1,/p' "$bound"); fi   # whatever form TOML has for them
    for file in "$own/launchers/$1"/*; do
        name=${file##*/}
        [ -f "$file" ] && is_name "$name" || continue
        if [ -n "$listed" ]; then
            case $listed in *"\"$name\""*) say "$name" ;; esac
            continue
        fi
        if [ -f "$bound" ] && ! grep -q "^[[:space:]]*\[\{1,2\}processes\.[\"']\{0,1\}${name}[]\"'.]" "$bound"; then continue; fi
        say "$name"
    done
}

# detach COMMAND...: in a session of its own, where it hears every signal; what a plain `&` starts ignores SIGINT for ever
detach() {
    if has perl; then
        (
            outside
            exec perl -e 'use POSIX; $SIG{$_} = "DEFAULT" for qw(INT QUIT HUP TERM PIPE); POSIX::setsid(); exec { $ARGV[0] } @ARGV; exit 127' "$@" </dev/null >/dev/null 8>&- 9>&-
        ) &
    elif has setsid; then
        # without a `&`: the first leads a group, so the second forks, and its parent does not wait
        (outside; setsid setsid "$@" </dev/null >/dev/null 8>&- 9>&-)
    else
        (outside; exec nohup "$@" </dev/null >/dev/null 8>&- 9>&-) &
    fi
}

# start_process RELEASE NAME: through its launcher; fails, and says what it wrote, if it is not there afterwards
start_process() {
    launcher=$own/launchers/$1/$2 file=$own/run/$2.pid
    if one=$(recorded "$file") && [ "$(field "$file" release)" = "$1" ] && [ -z "$(field "$file" stopping)" ]; then return 0; fi
    rm -f "$file"
    detach /bin/sh "$launcher"
    deadline=$(($(clock) + 15))
    while [ "$(clock)" -lt "$deadline" ]; do
        came=0
        if [ -f "$file" ]; then came=1; fi   # asked first: it may come right after the next line
        if one=$(recorded "$file") && [ "$(field "$file" release)" = "$1" ]; then return 0; fi
        [ $came = 0 ] || break   # it was there, and is not any more
        nap
    done
    problem "$2 of $1 did not start"
    evidence "$2"
    return 1
}

evidence() {   # the last lines that a process wrote since its last start
    [ -f "$logs/$1.log" ] || return 0
    detail "last lines of shared/logs/$1.log:"
    awk '/^--- started / { n = 0; next } { line[++n] = $0 } END { for (i = n > 12 ? n - 11 : 1; i <= n; i++) print "    " line[i] }' "$logs/$1.log" | plainly >&2
}

# ---------------------------------------------------------------- health

# probe_http URL TIMEOUT [TEXT]: prints the status, and " without" behind it where TEXT is not in the answer; fails without a tool (2).
# As for updater a certificate proves nothing here, and no redirect is followed
probe_http() {
    has curl || has wget || return 2
    {
        if has curl; then   # by options on its standard input: an address may hold a password, which the list of processes would show
            printf 'url = "%s"\n' "$(printf '%s' "$1" | sed 's/\\/\\\\/g; s/"/\\"/g')" |
                curl -q -sgk -m "$2" --noproxy '*' -w '\n%{http_code}' -K -
        else
            no_check=
            case $1 in https:*) no_check=--no-check-certificate ;; esac
            unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY all_proxy
            # shellcheck disable=SC2086
            wget -q -T "$2" $no_check -O - "$1" 2>/dev/null
            case $? in 0) printf '\n200' ;; 12[67] | 13? | 14? | 15?) printf '\nnone' ;; *) printf '\n000' ;; esac   # one that crashes says nothing of the application
        fi
    } | tr -d '\000' | WANTED=${3-} awk '
        NR > 1 && length(body) < 2000 { body = body held "\n" }
        { held = $0 }
        END { print held (ENVIRON["WANTED"] == "" || index(substr(body, 1, 2000), ENVIRON["WANTED"]) ? "" : " without") }'
}

probe_tcp() {   # HOST PORT TIMEOUT
    if has nc; then
        told=$(nc -z -w "$3" "$1" "$2" </dev/null 2>&1) && return 0
        case $told in *sage:* | *ption*) ;; *) return 1 ;; esac   # some have no -z, and that says nothing of the application
    fi
    has perl || return 2
    perl -e 'use IO::Socket; exit(IO::Socket::INET->new(PeerAddr => $ARGV[0], PeerPort => $ARGV[1], Timeout => $ARGV[2]) ? 0 : 1)' "$1" "$2" "$3"
}

# is_fresh FILE SECONDS: was it written within so many seconds, and since the process $name was started?
is_fresh() {
    [ -n "$(find -L "$1" -prune -newer "$own/run/$name.pid" 2>/dev/null)" ] || return 1   # what the one before wrote does not count
    if wrote=$(stat -L -c %Y "$1" 2>/dev/null) || wrote=$(stat -L -f %m "$1" 2>/dev/null); then
        [ $(($(clock) - wrote)) -le $(($2 + 1)) ]
    else   # to the minute; -mmin is not in POSIX, but GNU, BSD and busybox have it
        [ -n "$(find -L "$1" -prune -mmin "-$((($2 + 59) / 60 + 1))" 2>/dev/null)" ]
    fi
}

# shown_url URL: for people and records, without what may be secret in it
shown_url() { printf '%s' "$1" | sed 's|://[^/?#]*@|://***@|; s|[?#].*|?***|'; }

# command_probe WORDS: as updater asks it: in the directory and with the environment of the process $name; call it in a subshell
command_probe() {
    outside
    eval "set -- $(launcher_says "${release##*/}" "$name" cwd)"
    cd -- "$release/${1:-.}" || exit 1
    PATH=$release/.venv/bin:$PATH UPDATER_ROOT=$root UPDATER_SHARED=$root/shared UPDATER_PROCESS=$name UPDATER_RELEASE=${release##*/}
    export PATH UPDATER_ROOT UPDATER_SHARED UPDATER_PROCESS UPDATER_RELEASE
    while IFS= read -r variable; do
        [ -n "$variable" ] || continue
        eval "set -- $variable"
        export "$1=$2"
    done <<VARIABLES
$(launcher_says "${release##*/}" "$name" env)
VARIABLES
    eval "set -- $words"
    shift 2
    limited "$seconds" "$@"
}

# A probe is one line of a launcher, "# probe: TYPE TIMEOUT WORDS", quoted for the shell.
# probe RELEASE LINE: 0 passes, 1 fails ($why says how), 2 cannot be asked from here
probe() {
    release=$root/releases/$1 words=$2
    eval "set -- $words" || return 2
    type=$1 seconds=${2%%.*}
    [ "${seconds:-0}" -ge 1 ] || seconds=1
    shift 2
    case $type in
        alive) return 0 ;;
        http)
            status=$(probe_http "$1" "$seconds" "${3-}") || return 2
            case $status in none*) return 2 ;; esac
            # "2xx" stands for every status that begins so
            # shellcheck disable=SC2254
            case $status in $(printf '%s' "${2:-2xx}" | tr x '?')) return 0 ;; esac
            case $status in 000* | '') status=nothing ;; *' without') status="$status what it must hold" ;; esac
            why="$(shown_url "$1") answers $status"
            return 1
            ;;
        tcp)
            probe_tcp "$1" "$2" "$seconds"
            case $? in 0) return 0 ;; 2) return 2 ;; esac
            why="nothing listens on $1 port $2"
            return 1
            ;;
        file)
            case $1 in /*) path=$1 ;; *) path=$root/$1 ;; esac
            if is_fresh "$path" "${2%%.*}"; then return 0; fi
            why="$path is not written"
            return 1
            ;;
        command)
            if (command_probe "$@") </dev/null >/dev/null 2>&1 8>&- 9>&-; then return 0; fi
            why="$* fails"
            return 1
            ;;
    esac
    return 2
}

# healthy_once RELEASE: every process, or those in $only, lives and every probe passes now; else $why says what does not
healthy_once() {
    unasked=
    for name in ${only:-$(names_of "$1")}; do
        file=$own/run/$name.pid
        if ! recorded "$file" >/dev/null || [ "$(field "$file" release)" != "$1" ]; then
            why="$name does not run" who=$name
            return 1
        fi
        probes=$(launcher_says "$1" "$name" probe)
        while read -r line; do
            [ -n "$line" ] || continue
            probe "$1" "$line"
            case $? in
                1) why="$name: $why" who=$name; return 1 ;;
                2) unasked="$unasked $name" ;;
            esac
        done <<PROBES
$probes
PROBES
    done
}

# wait_healthy RELEASE SECONDS: twice in a row within that time
wait_healthy() {
    deadline=$(($(clock) + $2)) passed=0 why=''
    while [ $passed -lt 2 ]; do
        if healthy_once "$1"; then passed=$((passed + 1)); else passed=0; fi
        [ $passed -lt 2 ] || break
        [ "$(clock)" -lt "$deadline" ] || return 1
        sleep 1
    done
    [ -z "$unasked" ] || warn "no tool here asks the probes of$unasked: only that they run is known"
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

# ---------------------------------------------------------------- data on the move (docs/format.md)

exists() { [ -e "$1" ] || [ -L "$1" ]; }   # whatever it is, a link to nothing as well

# remove_tree PATH: under a temporary name first, so that half of it is never taken for whole
remove_tree() {
    exists "$1" || return 0
    doomed=$(dirname -- "$1")/$(temporary "$(basename -- "$1")")
    mv -f "$1" "$doomed" || return 1
    rm -rf "$doomed" 2>/dev/null && return 0
    find "$doomed" -type d -exec chmod u+rwx {} \; 2>/dev/null   # closed directories are opened for it
    rm -rf "$doomed"
}

# reachable PATH: does no link lie on the way to a path below shared/? What lies directly below it may be one
reachable() {
    case /$1/ in //* | */../* | */./* | *//*) return 1 ;; esac
    way=$root/shared/${1%%/*} rest=$1
    while [ "$rest" != "${rest#*/}" ]; do
        [ ! -L "$way" ] || [ "$way" = "$root/shared/${1%%/*}" ] || return 1
        rest=${rest#*/}
        way=$way/${rest%%/*}
    done
}

is_folder() { reachable "$1" && [ -d "$root/shared/$1" ] && { [ "$1" = "${1%%/*}" ] || [ ! -L "$root/shared/$1" ]; }; }

# swap_load RECORD: sets $s_id, $s_purpose, $s_ready, $s_keep; with $s_known 1 $s_steps are the lines of swap.steps for it
swap_load() {
    head=$(head -c 300 "$1" 2>/dev/null | sed -n '1s/^{"id":"\([^"\\]*\)","purpose":"\([a-z]*\)",.*/\1 \2/p')
    s_id=${head%% *} s_purpose=${head#* } s_ready=0 s_keep=0 s_known=0 s_steps=
    is_name "$s_id" || return 1
    ! grep -q '"ready":true' "$1" || s_ready=1
    ! grep -q '"keep":true' "$1" || s_keep=1
    case $(head -n 1 "$own/swap.steps" 2>/dev/null) in "id=$s_id purpose=$s_purpose keep="*) s_known=1 s_steps=$(sed 1d "$own/swap.steps") ;; esac
}

# swap_lines KIND [r]: the lines of a kind without it, shallowest first, or deepest first
swap_lines() { printf '%s\n' "$s_steps" | sed -n "s/^$1 //p" | sort "-n${2-}"; }

# text_of WORD: sets $text to what printf %b makes of it; by the shell alone where it is plain: there may be thousands
text_of() {
    case $1 in *\\*) text=$(printf '%bx' "$1") text=${text%x} ;; *) text=$1 ;; esac
}

is_temporary() {   # a name of our own making and no other: an application may have names with that prefix too
    case $1 in .tmp-*-*[0-9]-[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]) return 0 ;; esac
    case $1 in .tmp-*-[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]T[0-9][0-9][0-9][0-9][0-9][0-9]-[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]) return 0 ;; esac
    return 1
}

aside_of() { if [ "$1" = . ]; then printf '%s' "$root/shared/.updater-$s_id"; else printf '%s' "$root/shared/$1/.updater-$s_id"; fi; }

# each_aside COMMAND: for every directory in which old and new of the loaded move lie
each_aside() {
    for place in "$root/shared/.updater-$s_id" "$root"/shared/*/".updater-$s_id"; do
        [ ! -d "$place" ] || "$1" "$place" || return 1
    done
    while read -r depth number before after word path; do   # a filesystem that is mounted further down has its own
        [ -n "${path-}" ] || continue
        word=$(printf '%bx' "$word") word=${word%x}
        place=$root/shared/$word/.updater-$s_id
        if reachable "$word" && [ -d "$place" ]; then "$1" "$place" || return 1; fi
    done <<LINES
$(swap_lines S | grep '^[0-9]* [0-9]* [01] [01] [^[:space:]]*/[^[:space:]]*[[:space:]]')
LINES
}

line_break='
'
# keep_place DIRECTORY: what has been moved is kept beside it, with a list of what lay where. What holds nothing goes
keep_place() {
    found=0
    for place in "$1"/old/* "$1"/new/*; do
        if exists "$place"; then found=1; fi
    done
    if [ $found = 0 ]; then
        remove_tree "$1"
        return
    fi
    swap_lines S | {
        asided=/
        while read -r depth number before after word path; do
            [ "$word" = "$asided" ] || { text_of "$word"; aside=$(aside_of "$text") asided=$word; }
            [ "$aside" = "$1" ] || continue
            text_of "$path"
            case $text in *"$line_break"*) text=$(printf '%s' "$text" | awk 'NR > 1 { printf "\\n" } { printf "%s", $0 }') ;; esac
            printf '%s  %s\n' "$number" "$text"
        done
    } 2>/dev/null >"$1/PATHS" || :   # a full disk must not cost what is to be kept
    chmod 600 "$1/PATHS" 2>/dev/null || :
    number=1 kept=${1%/*}/.updater-kept-$s_id
    while exists "$kept"; do number=$((number + 1)) kept=${1%/*}/.updater-kept-$s_id-$number; done
    mv -f "$1" "$kept"
}

swap_kept() {   # where things of the loaded move are kept
    for place in "$root"/shared/.updater-kept-"$s_id"* "$root"/shared/*/.updater-kept-"$s_id"*; do
        [ ! -d "$place" ] || say "$place"
    done
}

# swap_back: everything that was moved goes back, as far as it had come. Doing it twice is harmless
swap_back() {
    stuck=0
    asided=/
    while read -r depth mode was path; do   # who is not root can rename only in what is open
        path=$(printf '%bx' "${path-}") path=${path%x}
        if is_folder "$path"; then chmod u+rwx "$root/shared/$path" 2>/dev/null || :; fi
    done <<LINES
$(swap_lines F)
LINES
    while read -r depth number before after word path; do
        [ "${after-}" = 1 ] || continue
        text_of "$word" && word=$text
        text_of "$path" && path=$text
        reachable "$path" || continue   # a link that is still there was not moved, so nothing was put behind it
        [ "$word" = "$asided" ] || aside=$(aside_of "$word") asided=$word
        if [ -d "$aside/new" ] && ! exists "$aside/new/$number" && { [ "$before" = 0 ] || exists "$aside/old/$number"; } &&
            exists "$root/shared/$path"; then
            mv -f "$root/shared/$path" "$aside/new/$number" || stuck=1
        fi
    done <<LINES
$(swap_lines S r)
LINES
    while read -r depth mode was path; do
        [ "${was-}" = - ] || continue
        path=$(printf '%bx' "$path") path=${path%x}
        if is_folder "$path" && [ ! -L "$root/shared/$path" ]; then rmdir "$root/shared/$path" 2>/dev/null || :; fi
    done <<LINES
$(swap_lines F r)
LINES
    while read -r depth number before after word path; do
        [ "${before-}" = 1 ] || continue
        text_of "$word" && word=$text
        text_of "$path" && path=$text
        [ "$word" = "$asided" ] || aside=$(aside_of "$word") asided=$word
        old=$aside/old/$number spot=$root/shared/$path
        exists "$old" || continue
        if ! reachable "$path"; then
            problem "shared/$(oneline "$path") lies behind a symlink; it is left alone: what belongs there is $old"
            stuck=1
        elif exists "$spot" && ! mv -f "$spot" "$spot.kept-$s_id"; then
            stuck=1
        else
            mv -f "$old" "$spot" || stuck=1
        fi
    done <<LINES
$(swap_lines S)
LINES
    while read -r depth mode was path; do
        case ${was:--} in -) continue ;; esac
        path=$(printf '%bx' "$path") path=${path%x}
        if is_folder "$path"; then chmod "$was" "$root/shared/$path" 2>/dev/null || :; fi
    done <<LINES
$(swap_lines F r)
LINES
    flush
    return $stuck
}

# swap_undo keep|drop: take back a move of data that does not count yet. What had taken the place is kept, and where is printed, or
# dropped. Fails if something of it is still to be done afterwards
swap_undo() {
    exists "$own/swap.json" || return 0
    if ! swap_load "$own/swap.json"; then
        problem "$own/swap.json cannot be read: the data that were moved lie in $root/shared/.updater-*"
        return 1
    fi
    if [ $s_ready = 1 ]; then   # else nothing has been moved
        if [ $s_known = 0 ]; then
            problem "nothing here tells a shell what was moved ($own/swap.steps): updater recover knows it from swap.json"
            return 1
        fi
        swap_back || return 1
    fi
    if [ "$1" = keep ]; then each_aside keep_place; else each_aside remove_tree; fi || return 1
    rm -f "$own/swap.json" && flush && rm -f "$own/swap.steps" || return 1
    swap_kept
}

# swap_accept: the new state counts from the rename on; what gave way is kept if it is nowhere else, else it goes
swap_accept() {
    if exists "$own/swap.json"; then mv -f "$own/swap.json" "$own/swapped.json" && flush || return 1; fi
    swap_clear
}

swap_clear() {   # finish what the rename began
    exists "$own/swapped.json" || return 0
    swap_load "$own/swapped.json" || return 1
    if [ $s_keep = 1 ]; then each_aside keep_place; else each_aside remove_tree; fi || return 1
    rm -f "$own/swapped.json" "$own/swap.steps" && flush
}

# settle_moves: what is left of moves whose deployment has ended, by updater's own rule: after a success what lay there before goes, after
# anything else both states stay where they are. Call it under the lock, when no journal is open
settle_moves() {
    swap_clear || return 1
    exists "$own/swap.json" || { rm -f "$own/swap.steps"; return 0; }
    swap_load "$own/swap.json" || return 1
    [ ! -f "$own/journal/$s_id.jsonl" ] || return 1
    if tail -n 1 "$own/journal/closed/$s_id.jsonl" 2>/dev/null | grep -q '"outcome": *"succeeded"'; then
        swap_accept
        return
    fi
    warn "data that were moved by $s_id ($s_purpose) are kept in $root/shared/.updater-$s_id"
    mv -f "$own/swap.json" "$own/swap-$s_id.kept.json" && rm -f "$own/swap.steps"
}

# schema_words FILE: what the header of a SQLite file says of its schema (cookie, user_version); fails if it is none. What lies in a
# -wal beside it is not looked at
schema_words() {
    [ "$(head -c 15 "$1" 2>/dev/null)" = 'SQLite format 3' ] || return 1
    printf '%s %s' "$(od -An -tx1 -j40 -N4 "$1" | tr -d ' \n')" "$(od -An -tx1 -j60 -N4 "$1" | tr -d ' \n')"
}

# ---------------------------------------------------------------- the journal of a deployment that has not ended

open_journals() { for file in "$own"/journal/*.jsonl; do if [ -f "$file" ] && [ ! -L "$file" ]; then say "$file"; fi; done; }

# journal_read FILE: its lines without their sums, up to the first whose sum is wrong
journal_read() {
    while IFS=' ' read -r sum body; do
        if [ -n "$sha_tool" ] && [ "$(printf '%s' "$body" | sha256 | cut -c1-16)" != "$sum" ]; then break; fi
        printf '%s\n' "$body"
    done <"$1"
}

# journal_lost FILE: does a whole line follow one that is damaged? That is no torn end, as a kill leaves it: what happened after
# the sound part is unknown. Call it when $j_lines are its sound ones
journal_lost() {
    [ -n "$j_lines" ] || return 0
    sound=$(printf '%s\n' "$j_lines" | wc -l)
    [ -n "$sha_tool" ] && [ "$((sound + 1))" -lt "$(wc -l <"$1")" ] || return 1
    [ -n "$(sed "1,$((sound + 1))d" "$1" | while IFS=' ' read -r sum body; do
        if [ "$(printf '%s' "$body" | sha256 | cut -c1-16)" = "$sum" ]; then say lost; fi
    done)" ]
}

# journal_load FILE: sets $j_id, $j_kind, $j_origin (the release before), $j_target, $j_ran (processes that ran), $j_lines, and $j_lost:
# 1 if lines were lost, so that the facts on the disk fill in
journal_load() {
    j_id=${1##*/} j_id=${j_id%.jsonl}
    j_lines=$(journal_read "$1")
    first=$(printf '%s\n' "$j_lines" | head -n 1)
    j_kind=$(printf '%s\n' "$first" | sed -n 's/.*"request":{[^}]*"kind":"\([a-z]*\)".*/\1/p')
    j_origin=$(printf '%s\n' "$first" | sed -n 's/.*"before":{[^}]*"in_service":"\([^"]*\)".*/\1/p')
    j_good=$(printf '%s\n' "$first" | sed -n 's/.*"before":{[^}]*"good":"\([^"]*\)".*/\1/p')
    j_mark=$(printf '%s\n' "$first" | sed -n 's/.*"before":{[^}]*"root":"\([0-9:]*\)".*/\1/p')
    j_place=$(printf '%s\n' "$first" | sed -n 's/.*"before":{[^}]*"place":"\([^"]*\)".*/\1/p')
    j_ran=$(printf '%s\n' "$first" | sed -n 's/.*"before":{[^}]*"running":\[\([^]]*\)\].*/\1/p' | tr -d '"' | tr ',' ' ')
    j_target=
    for phase in resolve choose; do
        [ -n "$j_target" ] || j_target=$(printf '%s\n' "$j_lines" | sed -n "/\"kind\":\"done\",\"mono\":[^,]*,\"phase\":\"$phase\",\"seq\":/s/.*\"version\":\"\([^\"]*\)\".*/\1/p" | head -n 1)
    done
    is_name "$j_origin" || j_origin=
    is_name "$j_target" || j_target=
    j_lost=0
    if journal_lost "$1"; then j_lost=1; else return 0; fi
    stands=$(in_service) || stands=
    if [ -z "$j_lines" ]; then   # the good release was what was in service, and its processes ran
        j_good=$(version_of "$own/good") || j_good=
        j_origin=${j_good:-$stands} j_ran=
        [ -z "$j_origin" ] || j_ran=$(names_of "$j_origin" | tr '\n' ' ')
    fi
    if [ -z "$j_target" ] && [ "$stands" != "$j_origin" ]; then j_target=$stands; fi
}

# journal_has KIND PHASE: whether the journal that was loaded has such a line
journal_has() { printf '%s\n' "$j_lines" | grep -q "\"kind\":\"$1\",\"mono\":[^,]*,\"phase\":\"$2\",\"seq\":[0-9]*,\"v\":1}\$"; }

# journal_is_ours: whether the journal that was loaded was written in this root, and is no copy of another root's
journal_is_ours() {
    is_ours "$j_mark" && return 0
    mine=$(root_mark)
    [ "${j_mark##*:}" = "${mine##*:}" ] || return 1
    case $j_place in "$root" | *\\*) return 0 ;; esac   # the device may have another number since; escapes are not compared
    return 1
}

# journal_committed: whether its deployment counts as done: the link .updater/good was renamed to its release
journal_committed() {
    if [ "$j_lost" = 1 ]; then
        ! printf '%s\n' "$j_lines" | grep -q '"kind":"failed","mono":' &&
            [ -n "$j_target" ] && [ "$(version_of "$own/good")" = "$j_target" ] && [ "$j_good" != "$j_target" ]
        return
    fi
    journal_has intent commit && ! printf '%s\n' "$j_lines" | grep -q '"kind":"failed","mono":' || return 1
    if [ "$j_kind" = restore ]; then
        [ ! -e "$own/swap.json" ]
        return
    fi
    journal_has 'done' commit || { [ "$(version_of "$own/good")" = "$j_target" ] && [ "$j_good" != "$j_target" ]; }
}

# journal_begin REQUEST BEFORE: a journal of this script's own, as updater writes them: whoever is killed from here on is undone by
# updater, by the other scripts, or by the same one again. REQUEST and BEFORE: JSON objects. Sets $journal, $j_id
journal_begin() {
    j_id=$(new_id)
    journal=$own/journal/$j_id.jsonl j_seq=0
    mkdir -p "$own/journal/closed" || return 1
    journal_line begin '' "{\"before\":$2,\"pid\":$$,\"request\":$1}" || { rm -f "$journal"; return 1; }
    flush "$own/journal"
}

# journal_line KIND PHASE [DATA]: one line, on the disk when this returns
journal_line() {
    phase=null
    [ -z "$2" ] || phase="\"$2\""
    body=$(printf '{"at":"%s","boot":%s,"data":%s,"kind":"%s","mono":null,"phase":%s,"seq":%s,"v":1}' \
        "$(moment)" "$(json "$(boot)")" "${3:-{\}}" "$1" "$phase" "$j_seq")
    printf '%s %s\n' "$(printf '%s' "$body" | sha256 | cut -c1-16)" "$body" 2>/dev/null >>"$journal" && flush "$journal" || return 1
    j_seq=$((j_seq + 1))
}

# world_before: what is in service and what runs, as a journal holds it; NAMES... are the processes that run
world_before() {
    running=
    for name in "$@"; do running="$running${running:+,}\"$name\""; done
    printf '{"at":"%s","good":%s,"in_service":%s,"place":%s,"previous":%s,"root":"%s","running":[%s]}' "$(moment)" \
        "$(json "$(version_of "$own/good")")" "$(json "$(in_service)")" "$(json_path "$root")" \
        "$(json "$(version_of "$own/previous")")" "$(root_mark)" "$running"
}

# journal_end FILE RECORD: the last line, then the journal is put away
journal_end() {
    if [ -n "$sha_tool" ]; then
        seq=$(printf '%s\n' "$j_lines" | sed -n '$s/.*"seq":\([0-9]*\),"v":1}$/\1/p')
        line=$(printf '{"at":"%s","boot":%s,"data":%s,"kind":"end","mono":null,"phase":null,"seq":%s,"v":1}' \
            "$(moment)" "$(json "$(boot)")" "$2" "$((${seq:--1} + 1))")
        # a torn last line is left out: what follows one would not be read
        {
            while IFS=' ' read -r sum body; do
                [ "$(printf '%s' "$body" | sha256 | cut -c1-16)" = "$sum" ] || break
                printf '%s %s\n' "$sum" "$body"
            done <"$1"
            printf '%s %s\n' "$(printf '%s' "$line" | sha256 | cut -c1-16)" "$line"
        } | write "$1" || warn "the end of ${1##*/} was not recorded"
    fi
    mkdir -p "$own/journal/closed" && mv -f "$1" "$own/journal/closed/" && flush
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

# add_to_history RECORD ID: one more line of the JSON array; a record that is there already is not added again
add_to_history() {
    file=$logs/update_history.json
    if [ -e "$file" ] && [ ! -f "$file" ]; then warn "$file is not a file: this was not written into the history"; return 0; fi
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
