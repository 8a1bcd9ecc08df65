# shellcheck shell=sh disable=SC2034,SC2154,SC2009,SC2030,SC2031
# What is being moved below shared/ by a restore or a migration: taken back, or finished. Sourced by lib.sh.

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
    if move_counts; then
        swap_accept
        return
    fi
    note_missing || { free_ballast; note_missing; } || return 1
    warn "data that were moved by $s_id ($s_purpose) are kept in $root/shared/.updater-$s_id"
    mv -f "$own/swap.json" "$own/swap-$s_id.kept.json" && rm -f "$own/swap.steps"
}

move_counts() {   # has the deployment of the loaded move succeeded? a note may follow the end
    grep '"kind":"end","mono":' "$own/journal/closed/$s_id.jsonl" 2>/dev/null | tail -n 1 | grep -q '"outcome": *"succeeded"'
}

# missing_lines: what is not in its place since the loaded move was given up, and where it lies, as members of a JSON object
missing_lines() {
    asided=/
    swap_lines S | while read -r depth number before after word path; do
        [ "${before-}" = 1 ] || continue
        [ "$word" = "$asided" ] || { text_of "$word"; aside=$(aside_of "$text") asided=$word; }
        text_of "$path" && path=$text
        old=$aside/old/$number
        if exists "$old" && ! exists "$root/shared/$path"; then printf '%s: %s\n' "$(json_path "$path")" "$(json_path "$old")"; fi
    done
}

# note_missing: says in missing.json what is not in its place since the loaded move was given up. Fails if that cannot be said
note_missing() {
    [ "$s_ready" = 1 ] || return 0   # else nothing has been moved
    [ "$s_known" = 1 ] || return 1
    members=$(missing_lines | sed '$!s/$/, /' | tr -d '\n')
    [ -n "$members" ] || return 0
    if [ -f "$own/missing.json" ]; then   # what has been missing for longer stays named; a line break within a name is written \n
        longer=$(tr -d '\r\n' <"$own/missing.json" | sed 's/^[[:blank:]]*{[[:blank:]]*//; s/[[:blank:]]*}[[:blank:]]*$//')
        members=${longer:+$longer, }$members
    elif exists "$own/missing.json"; then
        return 1   # nothing could be written there
    fi
    printf '{%s}\n' "$members" | write "$own/missing.json" 644
}

# all_back: is all in its place that missing.json names? A log comes and goes with its database. What this cannot read is updater's to see
all_back() {
    grep -q '": "' "$own/missing.json" 2>/dev/null && ! grep -q '[\]' "$own/missing.json" || return 1
    awk -F'"' '{ for (i = 2; i <= NF; i += 4) print $i }' "$own/missing.json" | while IFS= read -r path; do
        case $path in *-wal | *-shm | *-journal) if exists "$root/shared/${path%-*}"; then continue; fi ;; esac
        exists "$root/shared/$path" || exit 1
    done
}

# schema_words FILE: what the header of a SQLite file says of its schema (cookie, user_version); fails if it is none. What lies in a
# -wal beside it is not looked at
schema_words() {
    [ "$(head -c 15 "$1" 2>/dev/null)" = 'SQLite format 3' ] || return 1
    printf '%s %s' "$(od -An -tx1 -j40 -N4 "$1" | tr -d ' \n')" "$(od -An -tx1 -j60 -N4 "$1" | tr -d ' \n')"
}
