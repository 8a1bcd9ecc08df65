#!/bin/sh
# Puts the data of a backup back in the place of the present ones, which are kept: no Python, no network.
case ${ZSH_VERSION:+${ZSH_NAME-}} in '' | sh) ;; *) exec /bin/sh "$0" "$@" ;; esac   # zsh by its own name: `path` and `status` are taken there
scripts=$(dirname -- "$0")
# shellcheck source=scripts/lib.sh
. "$scripts/lib.sh"
# shellcheck source=scripts/lib_undo.sh
. "$scripts/lib_undo.sh"
# shellcheck source=scripts/lib_backup.sh
. "$scripts/lib_backup.sh"

usage() {
    cat <<HELP
usage: sh $0 [ID|latest] [options]

Puts the settings and data of a backup in the place of the present ones: checks the backup, unpacks it beside them, stops the
application, exchanges both by renames, starts what ran, and looks whether it is healthy. If anything fails, the present data come
back. They are never deleted: afterwards they lie in shared/.updater-kept-…. Without ID it lists the backups and asks.

  --list           show the backups
  --check          only check the backup: every sum, every archive
  --only PART      only config, data or logs (logs only if you say so); may be given twice
  --to DIR         unpack everything into a new directory, for a look; nothing else is touched
  --no-start       start nothing afterwards
  --force          take the backup of another root
  --dry-run        show what would be done, and change nothing
  --yes            ask nothing
  --root DIR       the root; else the one that this script lies in
  --help           this text

Ends with 0: done · 2 wrong usage · 3 refused, nothing was changed · 4 it failed, and the data are as before · 5 so did the way back
· 6 another operation holds the lock · 7 the backup is damaged · 130 cancelled
HELP
}

wanted='' action=restore parts='' into='' start=1 force=0
while [ $# -gt 0 ]; do
    if common_option "$@"; then shift $shifts; continue; fi
    case $1 in
        --list) action=list ;;
        --check) action=check ;;
        --only | --to) [ $# -ge 2 ] || usage_error "$1 needs a word" ;;
    esac
    case $1 in
        --list | --check) ;;
        --only) [ -n "$2" ] || usage_error '--only is empty'; parts="$parts $2"; shift ;;
        --only=*) [ -n "${1#--only=}" ] || usage_error '--only is empty'; parts="$parts ${1#--only=}" ;;
        --to) action=look into=$2; shift ;;
        --to=*) action=look into=${1#--to=} ;;
        --no-start) start=0 ;;
        --force) force=1 ;;
        -*) usage_error "there is no option $1" ;;
        *) [ -z "$wanted" ] || usage_error 'one ID at most'; wanted=$1 ;;
    esac
    shift
done
for part in $parts; do
    case $action-$part in
        look-dumps | look-state | *-config | *-data | *-logs) ;;
        *-dumps) usage_error 'dumps are put back by their own commands: updater backup restore ID --only dumps (or, for a look, --to DIR)' ;;
        *) usage_error "there is no part $part: config, data or logs" ;;
    esac
done
[ "$action" != look ] || [ -n "$into" ] || usage_error '--to is empty'   # an unset variable: whoever wants a look puts nothing back
find_root "$0"
backups=$root/shared/backups

# ---------------------------------------------------------------- which backup, and is it whole

none() {
    problem "$1"
    detail 'Nothing was changed.'
    if [ -n "$(all_backups)" ]; then
        detail 'These backups are here:'
        list_backups >&2
    else
        detail "Next: there are none in $backups; a copy of that directory from elsewhere will do: put it there, and run this again"
    fi
    exit "$2"
}

choose() {
    if [ -z "$wanted" ] && { [ "$action" = check ] || [ -n "$into" ]; }; then wanted=latest; fi
    if [ -z "$wanted" ]; then
        [ -t 0 ] && [ "$yes" = 0 ] || usage_error 'which backup? name its ID, or latest'
        list_backups
        printf '%sWhich one?%s [none] ' "$bold" "$plain"
        read -r wanted || wanted=
        [ -n "$wanted" ] || { say 'Nothing was changed.'; exit 130; }
    fi
    case $wanted in
        latest) id=$(newest_backup) || none 'no backup can be taken for the latest' 2 ;;
        backup_*) id=$wanted ;;
        *) id=backup_$wanted ;;
    esac
    is_backup_name "$id" || none "there is no backup $wanted" 2
    is_readable "$id" || none "$id cannot be read: its manifest.json is damaged, or of a newer updater" 7
}

if [ $action = list ]; then
    if [ -n "$(all_backups)" ]; then list_backups; else say "There are no backups in $backups."; fi
    exit 0
fi
choose
[ -n "$sha_tool" ] || fail 3 'neither sha256sum nor shasum is here, so nothing tells whether a backup is whole' 'Nothing was changed.' 'install one (coreutils, or perl), and run this again'
need_zstd
step "$id"
say "  made:    $(said "$id" created), $(said "$id" reason)"
from=$(said "$id" version release)
say "  release: ${from:-none}"
if ! check_backup "$id"; then
    [ $action != check ] || exit 7
    none "$id is damaged: it is not put back" 7
fi
good 'it is whole: every sum, every archive'
[ $action != check ] || exit 0

if [ -n "$into" ]; then
    if exists "$into"; then usage_error "$into is there already: name a new directory"; fi
    [ $dry_run = 0 ] || { say "It would unpack it into $into."; exit 0; }
    mkdir -p "$(dirname -- "$into")" || fail 3 "$(dirname -- "$into") cannot be made" 'Nothing was changed.'
    beside=$(cd -- "$(dirname -- "$into")" && pwd -P)/$(temporary look)
    trap 'rm -rf "$beside"' EXIT
    trap 'exit 130' INT HUP TERM
    mkdir -m 700 "$beside" || fail 3 "$beside cannot be made" 'Nothing was changed.'
    for part in ${parts:-config data logs dumps state}; do
        has_part "$id" "$part" || continue
        (cd -- "$backups/$id" && unpack "$part" "$beside") || fail 3 "$part could not be unpacked into $into" 'Nothing was left there.' 'see whether the disk is full: df'
    done
    mv "$beside" "$into" || fail 3 "$into could not be made" 'Nothing was changed.'
    say "Its content is in $into."
    exit 0
fi

# ---------------------------------------------------------------- may it be put back here

from_id=$(said "$id" id root) own_id=$(head -n 1 "$own/id" 2>/dev/null)
if [ -z "$own_id" ] && [ "$(said "$id" path root)" = "$root" ]; then own_id=$from_id; fi   # .updater is gone, but the place is the same
if [ "$from_id" != "$own_id" ]; then
    other="$(said "$id" name root) in $(said "$id" path root)"
    [ $force = 1 ] || fail 2 "$id is of another root: $other" 'Nothing was changed.' "if that is what you want (a move to this machine): --force; for a look: --to DIR"
    warn "$id is of another root: $other; gone on by --force"
fi
chosen='' given=$parts
for part in ${parts:-config data}; do
    if has_part "$id" "$part"; then
        case " $chosen " in *" $part "*) ;; *) chosen="$chosen $part" ;; esac
    elif [ -n "$given" ]; then
        usage_error "$id has no part $part"
    fi
done
chosen=${chosen# }
[ -n "$chosen" ] || fail 3 "$id holds neither config nor data" 'Nothing was changed.'
dumps=$(dumps_of "$id")
[ -n "$given" ] || [ -z "$dumps" ] || warn "$id also holds dumps of other databases ($(oneline "$dumps")): a shell cannot put these back, and they stay as they are"
excludes=$(toml "$root/updater.toml" backup exclude)
[ $? -ne 2 ] || fail 3 'a shell cannot read [backup] exclude in updater.toml, so it cannot tell what has to stay' 'Nothing was changed.' "write it as a plain list of strings, or: updater backup restore $id"

look() {   # sets $serving, and of the processes that run $names, $lost (those that nothing tells how to start again), $runs
    names='' lost='' serving=$(in_service) || serving=
    runs=$serving
    found=$(living | awk '!seen[$2]++ { print $2 ":" $3 }')
    for one in $found; do
        name=${one%%:*} runs=${one#*:}
        if [ -f "$own/launchers/$runs/$name" ]; then names="$names $name"; else lost="$lost $name"; fi
    done
    names=${names# }
}

look
say "  puts back: $chosen"
case "$names$lost" in '') say '  stops:     nothing: nothing runs' ;; *) say "  stops:     $names$lost" ;; esac
[ -z "$lost" ] || warn "nothing tells how to start${lost} again (its launcher is gone): start it by hand afterwards, or: updater start"
if [ $dry_run = 1 ]; then
    who=$(holder) && say "Another operation is at work now, so it would refuse: $who"
    exit 0
fi
ask "Put $chosen of $id in the place of the present ones (which are kept)?"

# ---------------------------------------------------------------- from here on it is a deployment with a journal

take_lock restore_backup.sh
if ! end_interrupted restore_backup.sh 1; then
    fail 5 'an earlier operation was interrupted, and could not be undone whole' 'The backup was not put back.' "$(command_line cleanup_failed_update.sh), or updater recover; then run this again"
fi
settle_moves || fail 3 'data of an earlier operation are still on the move, and could not be tidied up' 'The backup was not put back.' "updater recover; then run this again. Without Python: see that the disk is not full (df); or leave what was moved where it lies ($root/shared/.updater-*): mv $(quoted "$own/swap.json") $(quoted "$own/swap.json.aside"); then run this again"
[ -d "$backups/$id" ] || fail 3 "$id was removed meanwhile" 'Nothing was changed.'
look
stopped=0 began=$(moment) started_again=0
if [ ! -f "$own/id" ] && [ -n "$own_id" ]; then printf '%s\n' "$own_id" | write "$own/id" || :; fi

listed=
for part in $chosen; do listed="$listed${listed:+,}\"$part\""; done
request="{\"force\":$([ $force = 1 ] && echo true || echo false),\"kind\":\"restore\",\"origin\":\"script\",\"parts\":[$listed],\"user\":$(json "$(id -un 2>/dev/null)"),\"wanted\":\"$id\"}"
# shellcheck disable=SC2086
before=$(world_before $names)
journal_begin "$request" "$before" || { free_ballast; journal_begin "$request" "$before"; } ||
    fail 3 'no record of it can be written' 'Nothing was changed.' 'see whether the disk is full or read-only: df, mount; make room (old releases, old logs), and run this again'
chose="{\"backup\":\"$id\",\"parts\":[$listed],\"version\":$(json "$serving")}"

noted() { journal_line "$@" || go_back 3 'its record cannot be written any more (a full disk?)'; }

finish() {   # finish OUTCOME TEXT [ERROR]
    written=$(record "$j_id" restore "$serving" "$serving" "$1" "$began" "$2" "${3-}" "$id")
    unwritten=
    add_to_history "$written" "$j_id" || unwritten=1
    j_lines=$(journal_read "$journal")
    journal_end "$journal" "$written" $unwritten || warn 'the end of it was not recorded'
    log "[$j_id] restore $id: $1: $2${3:+: $3}"
}

# go_back CODE WHY [NEXT]: everything as it was; the exit code is 4 once the application was stopped, and 5 if that fails
go_back() {
    trap : INT HUP TERM   # not ignored: what is started from here on would ignore them as well
    code=$1 why_back=$2 next=${3-}
    problem "$why_back"
    free_ballast
    journal_line failed '' "{\"code\":\"deployment-failed\",\"message\":$(json "$why_back")}" || :
    trouble=0
    if [ $started_again = 1 ]; then stop_processes || trouble=1; fi
    kept=$(if [ $started_again = 1 ]; then swap_undo keep; else swap_undo drop; fi) || trouble=1
    [ -z "$kept" ] || warn "what was written meanwhile is kept in $kept"
    if [ $stopped = 1 ] && [ $trouble = 0 ] && [ -n "$names" ]; then
        step "Starting again: $names"
        start_again || trouble=1
    fi
    if [ $trouble = 1 ]; then
        log "[$j_id] restore $id: the way back failed: $why_back"
        problem 'and it could not be taken back whole: both states of the data are still there'
        detail "They are in $root/shared and in $root/shared/.updater-$j_id."
        detail "Next: $(command_line restore_backup.sh), or updater recover, takes it back again from where it stands"
        exit 5
    fi
    outcome=failed
    [ $stopped = 0 ] || outcome=rolled-back
    [ "$code" != 130 ] || outcome=cancelled
    finish "$outcome" 'by restore_backup.sh' "$why_back"
    if [ $stopped = 1 ]; then
        detail "The data are as they were before${names:+, and $names runs again}."
        [ "$code" = 130 ] || code=4
    else
        detail 'Nothing was changed.'
    fi
    [ -z "$next" ] || detail "Next: $next"
    exit "$code"
}

start_again() {
    for name in $names; do
        start_process "$runs" "$name" || { why="$name does not start" who=$name; return 1; }
        good "$name of $runs"
    done
    only=$names
    wait_healthy "$runs" "$(patience "$runs")" || { problem "$runs is not healthy: $why"; evidence "$who"; return 1; }
}

trap 'go_back 130 cancelled' INT HUP TERM
noted intent choose
noted 'done' choose "$chose"

# ---------------------------------------------------------------- unpacked beside

same_disk() { [ "$(device_of "$1")" = "$(device_of "$2")" ]; }

# device_of DIRECTORY: the filesystem that it is on
device_of() { stat -L -c %d "$1" 2>/dev/null || stat -L -f %d "$1" 2>/dev/null || df -P "$1" | awk 'NR == 2 { print $1 }'; }

# holder_of TOP: the directory whose filesystem a directory directly below shared/ is on: shared/ itself (.), or that one
holder_of() {
    if [ -d "$root/shared/$1" ] && ! same_disk "$root/shared/$1" "$root/shared"; then printf '%s' "$1"; else printf .; fi
}

tree_of() { printf '%s/tree-%s' "$(aside_of "$(holder_of "$1")")" "$1"; }   # where a part is unpacked: on the filesystem of its data

tops() {   # what lies directly below shared/, or in the directory $1, that backups hold
    for place in "$1"/* "$1"/.[!.]* "$1"/..?*; do
        name=${place##*/}
        exists "$place" || continue
        case $name in backups | .updater-*) continue ;; esac
        is_temporary "$name" || "$2" "$name"
    done
}

s_id=$j_id holders_json='""' holders=.
hold_top() {
    case " $(holder_of "$1") " in ' . ') return ;; esac
    holders="$holders $(word_path "$1")" holders_json="$holders_json,$(json_path "$1")"
}
tops "$root/shared" hold_top

# swap_record READY: swap.json, as updater reads it
swap_record() {
    {
        printf '{"id":"%s","purpose":"restore","holders":[%s],"steps":[' "$j_id" "$holders_json"
        [ "$1" = false ] || cat "$work/steps.json"
        printf '],"folders":['
        [ "$1" = false ] || cat "$work/folders.json"
        printf '],"emptied":[],"ready":%s,"keep":true}\n' "$1"
    } | write "$own/swap.json" 600
}

sound_databases() {
    while IFS= read -r path; do
        is_below "$path" || continue
        for part in $chosen; do
            place=$(tree_of "$part")/$path
            [ -f "$place" ] || continue
            told=$(sqlite3 -batch "$place" 'PRAGMA integrity_check' </dev/null 2>&1)
            rm -f "$place-wal" "$place-shm"   # of that look
            [ "$told" = ok ] || { problem "shared/$path of $id is corrupt: $(oneline "$told")"; return 1; }
            good "shared/$path: integrity_check"
        done
    done <<PATHS
$(databases_of "$id")
PATHS
}

noted intent stage
rm -f "$own/swap.steps"
swap_record false || go_back 3 "$own/swap.json could not be written" 'see whether the disk is full: df'
for word in $holders; do
    word=$(printf '%bx' "$word")
    aside=$(aside_of "${word%x}")
    mkdir -m 700 "$aside" "$aside/old" "$aside/new" || go_back 3 "$aside could not be made" 'run it as the user that owns the data'
done
work=$root/shared/.updater-$j_id
step "Unpacking beside the present data: $chosen"
for part in $chosen; do
    tree=$(tree_of "$part")
    mkdir -m 700 "$tree" && (cd -- "$backups/$id" && unpack "$part" "$tree") ||
        go_back 3 "$part of $id could not be unpacked" "see whether the disk is full (df): it needs room for $(human "$(du -sk "$backups/$id" | cut -f1)") and more; or unpack it elsewhere: --to DIR"
    good "$part"
done
if has sqlite3; then
    sound_databases || go_back 7 "$id holds a corrupt database" "another backup: $(command_line restore_backup.sh --list)"
else
    [ -z "$(databases_of "$id")" ] || warn 'no sqlite3 is here: its databases are as their sums say, and were not looked at otherwise'
fi
flush
noted 'done' stage

# ---------------------------------------------------------------- stop, exchange

noted intent stop
stopped=1
step 'Stopping the application'
stop_processes || go_back 4 'something of the application could not be stopped' "end it by hand (see ps), or $(command_line force_stop.sh); then run this again"
good 'nothing of it runs'
noted 'done' stop
noted intent restore

excluded() {   # does the configuration leave that path out of backups? then it stays
    [ -n "$excludes" ] || return 1
    while IFS= read -r pattern; do
        # shellcheck disable=SC2254
        case $1 in $pattern) return 0 ;; esac
    done <<PATTERNS
$excludes
PATTERNS
    return 1
}

excluded_below() {   # something that stays, in that directory?
    [ -n "$excludes" ] || return 1
    [ -n "$(cd -- "$root/shared" && find "./$1" | while IFS= read -r path; do
        if excluded "${path#./}"; then say "$path"; fi
    done)" ]
}

# one_step PATH: what stands at the path goes, what lies at $tree/PATH comes. There may be thousands, and the application is down: no
# programs where the shell will do
one_step() {
    number=$((number + 1)) gone=false comes=false before=0 after=0 depth=0 rest=$1
    while [ "$rest" != "${rest#*/}" ]; do depth=$((depth + 1)) rest=${rest#*/}; done
    case $1 in *[!A-Za-z0-9_./@%+=:,-]*) as_json=$(json_path "$1") as_word=$(word_path "$1") ;; *) as_json="\"$1\"" as_word=$1 ;; esac
    if exists "$root/shared/$1"; then gone=true before=1; fi
    if exists "$tree/$1"; then
        comes=true after=1
        mv "$tree/$1" "$aside/new/$number" || return 1
    fi
    printf '%s{"path":%s,"holder":%s,"number":%s,"before":%s,"after":%s}' "$comma" "$as_json" "$holder_json" "$number" $gone $comes >>"$work/steps.json" &&
        printf 'S %s %s %s %s %s\t%s\n' "$depth" "$number" $before $after "$holder_word" "$as_word" >>"$work/steps" || return 1
    comma=,
    if [ $gone = true ] && [ -d "$root/shared/$1" ] && [ ! -L "$root/shared/$1" ]; then
        same_disk "$root/shared/$1" "$(dirname -- "$root/shared/$1")" || { problem "shared/$1 is a filesystem of its own: it cannot be moved away"; return 1; }
        open_folder "$1" || return 1   # nobody but root can move one that is closed
    fi
}

mode_of() { stat -L -c %a "$1" 2>/dev/null || stat -L -f %Lp "$1" 2>/dev/null; }

# open_folder PATH: a directory that may not be written to is opened, and goes back to its mode if everything goes back
open_folder() {
    [ ! -w "$root/shared/$1" ] || return 0
    mode=$(mode_of "$root/shared/$1") && owner=$(stat -L -c '%u %g' "$root/shared/$1" 2>/dev/null || stat -L -f '%u %g' "$root/shared/$1" 2>/dev/null) ||
        { problem "shared/$1 may not be written to"; return 1; }
    decimal=$(printf '%d' "0$mode")
    printf '%s{"path":%s,"mode":%s,"owner":[%s],"was":[%s,%s]}' "$folders" "$(json_path "$1")" "$decimal" "$(echo "$owner" | tr ' ' ,)" "$decimal" "$(echo "$owner" | tr ' ' ,)" >>"$work/folders.json" &&
        printf 'F %s %s %s %s\n' "$(printf '%s' "$1" | tr -dc / | wc -c | tr -d ' ')" "$mode" "$mode" "$(word_path "$1")" >>"$work/steps" || return 1
    folders=,
}

# entry PATH: a path that is there, or in the backup, or both
entry() {
    ! excluded "$1" || return 0
    if [ "${1%%/*}" = logs ]; then
        log_entry "$1"
    elif [ ! -L "$root/shared/$1" ] && [ -d "$root/shared/$1" ] && excluded_below "$1"; then
        if exists "$tree/$1" && { [ ! -d "$tree/$1" ] || [ -L "$tree/$1" ]; }; then
            problem "shared/$1 is a directory with something in it that no backup holds; $id has a file of that name"
            return 1
        fi
        inside "$1"
    else
        one_step "$1"
    fi
}

# log_entry PATH: logs are the past: what is younger, or has grown, stays, and so do updater's own records
log_entry() {
    case ${1#logs/} in update_history.json* | update_progress.json* | update.log* | errors.log*) return 0 ;; esac
    exists "$tree/$1" || return 0
    if [ -f "$root/shared/$1" ] && [ -f "$tree/$1" ] && [ "$(wc -c <"$root/shared/$1")" -gt "$(wc -c <"$tree/$1")" ]; then return 0; fi
    if [ -d "$root/shared/$1" ] && [ ! -L "$root/shared/$1" ] && [ -d "$tree/$1" ]; then inside "$1"; else one_step "$1"; fi
}

# inside DIRECTORY: everything in it that is there, then what only the backup has
inside() {
    open_folder "$1" && printf '%s %s\n' "$(mode_of "$root/shared/$1")" "$(word_path "$1")" >>"$work/opened" || return 1
    for place in "$root/shared/$1"/* "$root/shared/$1"/.[!.]* "$root/shared/$1"/..?*; do
        exists "$place" || continue
        case ${place##*/} in .updater-*) continue ;; esac
        ! is_temporary "${place##*/}" || continue
        entry "$1/${place##*/}" || return 1
    done
    for place in "$tree/$1"/* "$tree/$1"/.[!.]* "$tree/$1"/..?*; do
        exists "$place" || continue
        exists "$root/shared/$1/${place##*/}" || entry "$1/${place##*/}" || return 1
    done
}

# top NAME: a path directly below shared/
top() {
    ! excluded "$1" || return 0
    holder=$(holder_of "$1") aside=$(aside_of "$holder")
    holder_word=$(word_path "$holder") holder_json=$(json_path "$holder")
    [ "$holder" != . ] || holder_json='""'
    if [ -d "$root/shared/$1" ] && [ -d "$tree/$1" ] && [ ! -L "$tree/$1" ]; then
        inside "$1"
    elif [ -d "$root/shared/$1" ] && ! exists "$tree/$1" &&
        { [ -L "$root/shared/$1" ] || [ "$holder" != . ] || [ "$1" = config ] || [ "$1" = data ]; }; then
        inside "$1"
    else
        entry "$1"
    fi
}

plan() {
    number=0 comma='' folders=''
    for part in $chosen; do
        tree=$(tree_of "$part")
        case $part in
            config | logs) top "$part" || return 1 ;;
            data)
                for place in "$root/shared"/* "$root/shared"/.[!.]* "$root/shared"/..?* "$tree"/* "$tree"/.[!.]* "$tree"/..?*; do
                    name=${place##*/}
                    exists "$place" || continue
                    case $name in config | logs | backups | .updater-*) continue ;; esac
                    ! is_temporary "$name" || continue
                    # what is there comes first, and takes along what the backup has of it
                    case $place in "$tree"/*) if exists "$root/shared/$name"; then continue; fi ;; esac
                    top "$name" || return 1
                done
                ;;
        esac
    done
}

# shellcheck disable=SC2031
forward() {
    swap_load "$own/swap.json" || return 1
    asided=/
    while read -r depth mode was path; do
        [ -n "${path-}" ] || continue
        path=$(printf '%bx' "$path") path=${path%x}
        chmod u+rwx "$root/shared/$path" || return 1
    done <<LINES
$(swap_lines F)
LINES
    while read -r depth number before after word path; do
        [ "${before-}" = 1 ] || continue
        [ "$word" = "$asided" ] || { text_of "$word"; aside=$(aside_of "$text") asided=$word; }
        text_of "$path"
        mv -f "$root/shared/$text" "$aside/old/$number" || return 1
    done <<LINES
$(swap_lines S r)
LINES
    while read -r depth number before after word path; do
        [ "${after-}" = 1 ] || continue
        [ "$word" = "$asided" ] || { text_of "$word"; aside=$(aside_of "$text") asided=$word; }
        text_of "$path"
        if exists "$root/shared/$text"; then problem "shared/$text came into being meanwhile; something still writes there"; return 1; fi
        mv -f "$aside/new/$number" "$root/shared/$text" || return 1
    done <<LINES
$(swap_lines S)
LINES
    while read -r mode word; do
        path=$(printf '%bx' "$word") path=${path%x}
        [ -w "$root/shared/$path" ] && [ "$(mode_of "$root/shared/$path")" = "$mode" ] || chmod "$mode" "$root/shared/$path" 2>/dev/null || :
    done <"$work/opened"
    flush
}

# claim: what comes to lie beside a database that was put in its place is the restored state's from here on, and is taken back with it;
# else SQLite would read it into the database that comes back. What lies there already goes to what gave way
claim() {
    swap_load "$own/swap.json" || return 1
    number=$(swap_lines S | awk '$2 > most { most = $2 } END { print most + 0 }')
    while read -r depth at before after word coded; do
        [ "${after-}" = 1 ] || continue
        path=$(printf '%bx' "$coded") path=${path%x} holder=$(printf '%bx' "$word") holder=${holder%x}
        [ ! -L "$root/shared/$path" ] && [ -f "$root/shared/$path" ] && [ "$(head -c 15 "$root/shared/$path" | tr -d '\000')" = 'SQLite format 3' ] || continue
        holder_json=$(json_path "$holder") gone=false
        [ "$holder" != . ] || holder_json='""'
        for end in -wal -shm -journal; do
            tab=$(printf '\t')
            ! swap_lines S | grep -qF "$tab$coded$end" || continue
            number=$((number + 1)) gone=false
            ! exists "$root/shared/$path$end" || gone=true
            printf ',{"path":%s,"holder":%s,"number":%s,"before":%s,"after":true}' "$(json_path "$path$end")" "$holder_json" "$number" $gone >>"$work/steps.json" &&
                printf 'S %s %s %s 1 %s\t%s\n' "$depth" "$number" "$([ $gone = true ] && echo 1 || echo 0)" "$word" "$coded$end" >>"$work/steps" || return 1
            [ $gone = false ] || printf '%s %s %s\n' "$number" "$word" "$coded$end" >>"$work/late" || return 1
        done
    done <<LINES
$(swap_lines S)
LINES
    flush
    write "$own/swap.steps" 600 <"$work/steps" && swap_record true || return 1
    [ -f "$work/late" ] || return 0
    while read -r number word coded; do
        path=$(printf '%bx' "$coded") path=${path%x} holder=$(printf '%bx' "$word") holder=${holder%x}
        mv -f "$root/shared/$path" "$(aside_of "$holder")/old/$number" || return 1
    done <"$work/late"
    rm -f "$work/late"
}

step 'Exchanging the data'
: >"$work/steps.json" && : >"$work/folders.json" && : >"$work/opened" && printf 'id=%s purpose=restore keep=1\n' "$j_id" >"$work/steps" && plan ||
    go_back 4 'what has to be moved could not be written down' 'see above, and whether the disk is full: df'
flush
# the steps are on the disk before swap.json says that they count, and that is before the first rename
write "$own/swap.steps" 600 <"$work/steps" && swap_record true || go_back 4 "$own/swap.json could not be written" 'see whether the disk is full: df'
forward && claim || go_back 4 'the data could not be exchanged'
for part in $chosen; do remove_tree "$(tree_of "$part")"; done
rm -f "$work/steps" "$work/steps.json" "$work/folders.json" "$work/opened"
good "$chosen"
noted 'done' restore

# ---------------------------------------------------------------- start what ran, then it counts

if [ $start = 1 ] && [ -n "$names" ]; then
    noted intent start
    started_again=1
    step "Starting: $names"
    start_again || go_back 4 "with the data of $id the application is not healthy: $why"
    noted 'done' start
fi
noted intent commit
trap : INT HUP TERM
swap_accept || warn 'what gave way lies in '"$work"' still: updater recover tidies up'
# not before this counts: the backup may have brought what a way back could not put back
if [ ! -e "$own/swap.json" ] && all_back; then rm -f "$own/missing.json"; fi
kept=$(swap_kept)
for part in $chosen; do   # directories that may not be written to: the archive has them open
    for index in "$backups/$id/$part.delta.index.zst" "$backups/$id/$part.index.zst"; do
        [ -f "$index" ] || continue
        zstd -dcq "$index" 2>/dev/null | sed -n 's/^\["\([^"\\]*\)","directory",\([0-9]*\),.*/\2 \1/p' | while read -r mode path; do
            [ $((mode & 128)) -eq 0 ] && is_folder "$path" && [ -w "$root/shared/$path" ] && chmod "$(printf '%o' "$mode")" "$root/shared/$path"
        done
        break
    done
done
finish succeeded 'by restore_backup.sh'
say "$green$id is back: $chosen.$plain"
if [ -n "$kept" ]; then
    say 'What lay there before is kept, and nothing removes it but you:'
    printf '%s\n' "$kept" | sed 's/^/    /'
    # what SQLite keeps beside a database goes with it: taken for the other one's, it would destroy that
    say 'To put it back: stop the application, then in each of these directories (PATHS tells which number was which path):'
    say "    s=$(quoted "$root/shared") r=restored-\$(date +%s); is() { [ -e \"\$1\" ] || [ -L \"\$1\" ]; }
    while IFS= read -r l; do p=\${l#*  }; for x in '' -wal -shm -journal; do if is \"\$s/\$p\$x\"; then mv \"\$s/\$p\$x\" \"\$s/\$p\$x.\$r\"; fi; done; done <PATHS
    while IFS= read -r l; do if is \"old/\${l%%  *}\"; then mv \"old/\${l%%  *}\" \"\$s/\${l#*  }\"; fi; done <PATHS; mv PATHS PATHS.done"
fi
[ -n "$given" ] || [ -z "$dumps" ] || {
    warn "not put back: dumps of $(oneline "$dumps"). Next: updater backup restore $id --only dumps"
    detail "or by hand: $(command_line restore_backup.sh "$id" --only dumps --to DIR), then the restore command of [backup.dumps] with DIR/dumps/NAME"
}
[ $start = 1 ] || [ -z "$names" ] || say "Not started (--no-start): $names."
