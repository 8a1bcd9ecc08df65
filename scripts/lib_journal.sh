# shellcheck shell=sh disable=SC2034,SC2154,SC2009,SC2030,SC2031
# The journal of a deployment: what a shell reads in it, and how it writes its own. Sourced by lib.sh.

# ---------------------------------------------------------------- the journal of a deployment that has not ended

open_journals() { for file in "$own"/journal/*.jsonl; do if [ -f "$file" ] && [ ! -L "$file" ]; then say "$file"; fi; done; }

# interrupted_journals: those of them that have no end: it is still to be made, or somebody is at work
interrupted_journals() {
    open_journals | while IFS= read -r file; do
        journal_load "$file"
        journal_ended || say "$file"
    done
}

# journal_read FILE: its lines without their sums, up to the first whose sum is wrong
journal_read() {
    while IFS=' ' read -r sum body; do
        if [ -n "$sha_tool" ] && [ "$(printf '%s' "$body" | sha256 | cut -c1-16)" != "$sum" ]; then break; fi
        printf '%s\n' "$body"
    done <"$1"
}

# journal_lost FILE: does a whole line follow one that is damaged? That is no torn end, as a kill leaves it: what happened after
# the sound part is unknown; so it is where updater has cut them off since. Call it when $j_lines are its sound ones
journal_lost() {
    [ -n "$j_lines" ] || return 0
    ! printf '%s\n' "$j_lines" | grep -q '"kind":"lost","mono":' || return 0
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
    case $first in
        *'"kind":"begin","mono":'*) ;;
        *)   # the good release was what was in service, and its processes ran
            j_good=$(version_of "$own/good") || j_good=
            j_origin=${j_good:-$stands} j_ran=
            [ -z "$j_origin" ] || j_ran=$(names_of "$j_origin" | tr '\n' ' ')
            ;;
    esac
    if [ -z "$j_target" ] && [ "$stands" != "$j_origin" ]; then j_target=$stands; fi
}

# journal_has KIND PHASE: whether the journal that was loaded has such a line
journal_has() { printf '%s\n' "$j_lines" | grep -q "\"kind\":\"$1\",\"mono\":[^,]*,\"phase\":\"$2\",\"seq\":[0-9]*,\"v\":1}\$"; }

# journal_ended: whether the journal that was loaded has its end (a note may follow that). Then it is not interrupted: its record could
# not be written into the history, and waits there for the next command of updater's, or for a script
journal_ended() { printf '%s\n' "$j_lines" | grep -q '"kind":"end","mono":[^,]*,"phase":null,"seq":[0-9]*,"v":1}$'; }

journal_waits() { say "  $j_id, ${j_kind:-deployment} of ${j_target:-?}: it has ended, and waits for the history: updater recover writes it there"; }

# journal_failed: whether it was decided already that it goes back: from there it is never forward again
journal_failed() { printf '%s\n' "$j_lines" | grep -q '"kind":"failed","mono":'; }

# journal_phase: the phase that began last
journal_phase() { printf '%s\n' "$j_lines" | sed -n 's/.*"kind":"intent","mono":[^,]*,"phase":"\([a-z_-]*\)","seq":.*/\1/p' | tail -n 1; }

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
        ! journal_failed &&
            [ -n "$j_target" ] && [ "$(version_of "$own/good")" = "$j_target" ] && [ "$j_good" != "$j_target" ]
        return
    fi
    journal_has intent commit && ! journal_failed || return 1
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
    line=$(journal_text "$1" "$phase" "${3:-{\}}" "$j_seq")
    printf '%s\n' "$line" 2>/dev/null >>"$journal" && flush "$journal" || return 1
    j_seq=$((j_seq + 1))
}

journal_text() {   # journal_text KIND PHASE DATA SEQ: such a line with its sum; PHASE and DATA are JSON
    body=$(printf '{"at":"%s","boot":%s,"data":%s,"kind":"%s","mono":null,"phase":%s,"seq":%s,"v":1}' \
        "$(moment)" "$(json "$(boot)")" "$3" "$1" "$2" "$4")
    printf '%s %s' "$(printf '%s' "$body" | sha256 | cut -c1-16)" "$body"
}

# journal_add FILE KIND DATA: one more line of the journal that was loaded; it is on the disk when this returns. Fails if it is not
journal_add() {
    [ -n "$sha_tool" ] || return 1
    seq=$(printf '%s\n' "$j_lines" | sed -n '$s/.*"seq":\([0-9]*\),"v":1}$/\1/p')
    line=$(journal_text "$2" null "$3" "$((${seq:--1} + 1))")
    if [ -n "$j_lines" ] && [ "$(grep -c '' "$1")" -eq "$(printf '%s\n' "$j_lines" | grep -c '')" ]; then
        # on a full disk there is room for it in the block that the file ends in
        printf '%s\n' "$line" | cat 2>/dev/null >>"$1" && flush "$1" || return 1
    else   # a torn last line is left out: what follows one would not be read
        {
            while IFS=' ' read -r sum body; do
                [ "$(printf '%s' "$body" | sha256 | cut -c1-16)" = "$sum" ] || break
                printf '%s %s\n' "$sum" "$body"
            done <"$1"
            printf '%s\n' "$line"
        } | write "$1" || return 1
    fi
    j_lines=$j_lines${j_lines:+$line_break}${line#* }
}

# world_before: what is in service and what runs, as a journal holds it; NAMES... are the processes that run
world_before() {
    running=
    for name in "$@"; do running="$running${running:+,}\"$name\""; done
    printf '{"at":"%s","good":%s,"in_service":%s,"place":%s,"previous":%s,"root":"%s","running":[%s]}' "$(moment)" \
        "$(json "$(version_of "$own/good")")" "$(json "$(in_service)")" "$(json_path "$root")" \
        "$(json "$(version_of "$own/previous")")" "$(root_mark)" "$running"
}

# journal_end FILE RECORD [KEEP]: the last line, then the journal is put away; with KEEP it stays, since the record is not in the
# history: the next command of updater's, or a script, writes it there
journal_end() {
    [ -z "$sha_tool" ] || journal_add "$1" end "$2" || warn "the end of ${1##*/} was not recorded"
    [ -z "${3-}" ] || [ -z "$sha_tool" ] || return 0
    mkdir -p "$own/journal/closed" && mv -f "$1" "$own/journal/closed/" && flush
}
