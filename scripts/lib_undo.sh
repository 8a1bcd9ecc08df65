# shellcheck shell=sh disable=SC2154,SC2034
# How a deployment that was interrupted is brought to its end from a shell. Sourced by the scripts that need it, after lib.sh.
#
# As updater's own recovery does it: facts on the disk first, the journal second; before the rename of .updater/good everything
# goes back, after it everything goes forward. Doing it twice is harmless, so a killed script is simply run again.

# toml_number FILE SECTION KEY: a number in updater.toml; nothing if it is not there in plain form
toml_number() {
    awk -v section="[$2]" -v key="$3" '
        /^[ \t]*\[/ { line = $0; gsub(/[ \t]/, "", line); sub(/#.*/, "", line); here = (line == section) }
        here { line = $0; sub(/#.*/, "", line); n = index(line, "="); name = substr(line, 1, n - 1); gsub(/[ \t]/, "", name)
               if (n && name == key) { value = substr(line, n + 1); gsub(/[ \t_]/, "", value); if (value ~ /^[0-9.]+$/) print value; exit } }
    ' "$1" 2>/dev/null
}

# patience RELEASE: seconds within which its processes must be healthy
patience() {
    for file in "$own/configurations/$1.toml" "$root/updater.toml"; do
        seconds=$(toml_number "$file" health timeout)
        seconds=${seconds%%.*}
        [ -z "$seconds" ] || { if [ "$seconds" -ge 2 ]; then printf '%s' "$seconds"; else printf 2; fi; return; }
    done
    printf 60
}

# keep_aside FILE: a copy beside it, as updater names it; prints its name
keep_aside() {
    number=1 name=$1.kept-$(date -u +%Y%m%d_%H%M%S)
    while [ -e "$name" ]; do
        if cmp -s "$1" "$name"; then printf '%s' "$name"; return; fi
        number=$((number + 1)) name=${name%-[0-9]}-$number
    done
    cp -p "$1" "$name" && flush "$name" "$(dirname -- "$name")" && printf '%s' "$name"
}

# put_file FROM TO: TO holds what FROM does, whole or as before
put_file() {
    beside=$(dirname -- "$2")/$(temporary "$(basename -- "$2")")
    mkdir -p "$(dirname -- "$2")" && cp -p "$1" "$beside" && flush "$beside" && mv -f "$beside" "$2" || { rm -f "$beside"; return 1; }
    flush "$(dirname -- "$2")"
}

is_below() { case "/$1/" in */../* | */./* | *//*) return 1 ;; esac; [ -n "$1" ]; }

set_of() { found=$(readlink "$own/config/$1" 2>/dev/null) && is_name "${found##*/}" && printf '%s' "${found##*/}"; }

set_is_sound() {   # the settings that were kept under that name are there and as they were written
    [ -n "$1" ] && [ -f "$own/config/.sets/$1/SHA256SUMS" ] || return 1
    # shellcheck disable=SC2086
    [ -z "$sha_tool" ] || [ ! -s "$own/config/.sets/$1/SHA256SUMS" ] || (cd -- "$own/config/.sets/$1" && $sha_tool -c SHA256SUMS >/dev/null 2>&1)
}

files_of() { sed 's/^[0-9a-f]*  //' "$own/config/.sets/$1/SHA256SUMS" 2>/dev/null; }

# settings_back RELEASE LEFT: the settings come back with which a release last ran; what nobody has kept is kept aside
settings_back() {
    to_set=$(set_of "$1") && set_is_sound "$to_set" || return 0
    left_set=$(set_of "${2:-none}") || left_set=none
    files_of "$to_set" | while IFS= read -r below; do
        is_below "$below" || continue
        kept=$own/config/.sets/$to_set/$below here=$root/shared/$below
        if [ -L "$here" ] || { [ -e "$here" ] && [ ! -f "$here" ]; } || cmp -s "$kept" "$here"; then continue; fi
        if [ -f "$here" ] && ! cmp -s "$here" "$own/config/.sets/$left_set/$below"; then
            aside=$(keep_aside "$here") || { warn "shared/$below stays as it is: it could not be kept aside (a full disk?)"; continue; }
            say "  shared/$below as it was is kept in ${aside#"$root/"}"
        fi
        if put_file "$kept" "$here"; then say "  shared/$below as $1 last ran with it"; else warn "shared/$below could not be written"; fi
    done
}

# settings_undo DEPLOYMENT: what it wrote into the settings goes; an edit made since is kept aside
settings_undo() {
    set_is_sound "$1.written" || return 0
    set_is_sound "$1" || { warn "the settings stay as they are: those from before, in .updater/config/.sets/$1, are damaged"; return 0; }
    files_of "$1.written" | while IFS= read -r below; do
        is_below "$below" || continue
        wrote=$own/config/.sets/$1.written/$below before=$own/config/.sets/$1/$below here=$root/shared/$below
        [ -f "$here" ] && [ ! -L "$here" ] || continue
        if [ -f "$before" ]; then
            cmp -s "$before" "$here" && continue
            if ! cmp -s "$wrote" "$here"; then
                aside=$(keep_aside "$here") || { warn "shared/$below stays as it is: it could not be kept aside"; continue; }
                say "  shared/$below was edited meanwhile; that is kept in ${aside#"$root/"}"
            fi
            put_file "$before" "$here" || warn "shared/$below could not be written"
        elif cmp -s "$wrote" "$here"; then
            rm -f "$here"
        fi
    done
}

hook_patience=60
resume_application() {   # it was told to take on nothing new: that is over
    [ -e "$own/drained" ] || return 0
    if [ -x "$own/resume" ] && [ -f "$own/resume" ] && [ ! -L "$own/resume" ]; then
        (outside; limited "$hook_patience" "$own/resume") </dev/null >/dev/null 2>&1 8>&- 9>&- || warn 'the resume hook of [gate] failed: look whether the application takes on new work'
    else
        warn 'the application was told to take on nothing new; if it has a resume hook ([gate] resume in updater.toml), run that'
    fi
    rm -f "$own/drained" "$own/resume"
}

# data_undo: what a restore or a migration has moved goes back; by the data rule it stays where the schema is the same and the
# new release may have written to it
data_undo() {
    # what updater's own way back, which was interrupted as well, had kept of it already; the journal's line goes before the move
    kept_data=$(printf '%s\n' "$j_lines" | sed -n -e 's/.*"kept":"\(backup_[0-9_]*\)".*"kind":"note".*/\1/p' -e 's/.*"kept":"\(backup_[0-9_]*\)".*"kind":"undone".*/\1/p' | tail -n 1)
    [ -z "$kept_data" ] || say "  what ${j_target:-the release} wrote meanwhile is kept in $kept_data"
    [ -e "$own/swap.json" ] || return 0
    if [ "$j_lost" = 1 ] || journal_has intent start; then
        if [ "$j_kind" != restore ] && schema_is_unchanged; then
            mv -f "$own/swap.json" "$own/swapped.json" && flush   # what was moved there counts; updater tidies up
            return
        fi
        aside=$(swap_undo keep) || return 1
        [ -z "$aside" ] || kept_data="${kept_data:+$kept_data, }$(oneline "$aside")"
        [ -z "$aside" ] || say "  the data from before are back; what was written meanwhile is kept in $(oneline "$aside") (PATHS there: which number was which path)"
    else
        swap_undo drop
    fi
}

schema_is_unchanged() {   # are all databases that were moved of the same schema as what took their place?
    seen=0
    swap_load "$own/swap.json" && [ "$s_known" = 1 ] || return 1
    while read -r depth number before after word path; do
        [ "${before-}${after-}" = 11 ] || continue
        word=$(printf '%bx' "$word") word=${word%x} path=$(printf '%bx' "$path") path=${path%x}
        old=$(aside_of "$word")/old/$number here=$root/shared/$path
        schema_words "$old" >/dev/null && [ -f "$old" ] || continue
        reachable "$path" && [ -f "$here" ] && [ ! -s "$here-journal" ] || return 1
        if [ -s "$here-wal" ]; then   # what is in it does not show in the header
            has sqlite3 && sqlite3 -batch "$here" 'PRAGMA wal_checkpoint(TRUNCATE)' </dev/null >/dev/null 2>&1 && [ ! -s "$here-wal" ] || return 1
        fi
        [ "$(schema_words "$old")" = "$(schema_words "$here")" ] || return 1
        seen=1
    done <<LINES
$(swap_lines S)
LINES
    [ $seen = 1 ]
}

# mark_good VERSION LEAVING: as after a deployment; with LEAVING as after a rollback, which puts what it leaves at the bottom
mark_good() {
    highest=0 lowest=0
    for mark in "$own"/marks/*.good; do
        version=${mark##*/} at=$(place_of "${version%.good}") || continue
        [ "$at" -le "$highest" ] || highest=$at
        [ "$at" -ge "$lowest" ] || lowest=$at
    done
    mkdir -p "$own/marks"
    if [ -n "$2" ] && is_good "$1"; then
        if is_good "$2"; then
            printf 'at=%s\nseq=%s\ndeployment=%s\n' "$(moment)" "$((lowest - 1))" "$3" | write "$own/marks/$2.good"
        fi
    else
        printf 'at=%s\nseq=%s\ndeployment=%s\n' "$(moment)" "$((highest + 1))" "$3" | write "$own/marks/$1.good"
    fi
    rm -f "$own/marks/$1.bad"
}

point() {   # point NAME VERSION: .updater/good or .updater/previous names a release, or is not there
    if [ -n "$2" ]; then swap_link "$1" "../releases/$2" "$own"; elif [ -L "$own/$1" ]; then rm -f "$own/$1"; fi
}

# end_interrupted SCRIPT RESTART: every deployment whose owner is dead is finished or undone; one that has ended already and waits for
# the history is written there. Call it under the lock. With RESTART 1 what ran before runs again. $ended names those that were
# finished or undone; fails if one could not be undone whole ($data_trouble: its data). With $give_up 1 data that cannot be moved
# back stay where they are.
end_interrupted() {
    ended='' trouble=0 data_trouble=0
    for journal in "$own"/journal/*.jsonl; do
        [ -f "$journal" ] && [ ! -L "$journal" ] || continue
        if ! [ -r "$journal" ]; then
            problem "$journal cannot be read: whose it is must run this"
            trouble=1
            continue
        fi
        journal_load "$journal"
        if journal_ended; then
            written=$(printf '%s\n' "$j_lines" | sed -n 's/^{"at":"[^"]*","boot":[^,]*,"data":\({.*}\),"kind":"end","mono":.*/\1/p' | tail -n 1)
            case $written in
                *'"outcome":'*)
                    add_to_history "$written" "$j_id" || continue   # it stays
                    say "  $j_id is in the history now"
                    ;;
            esac
            mv -f "$journal" "$own/journal/closed/"
            continue
        fi
        ended="$ended $j_id"
        free_ballast
        began=$(printf '%s\n' "$j_lines" | sed -n '1s/^{"at":"\([^"]*\)".*/\1/p')
        if journal_committed; then
            finish_committed "$1"
        else
            undo_one "$1" "$2"
        fi
    done
    [ "$trouble" = 0 ]
}

finish_committed() {
    say "The deployment of ${j_target:-?} was interrupted after its commit: it is finished."
    [ ! -e "$own/swap.json" ] || mv -f "$own/swap.json" "$own/swapped.json"
    if [ "$j_kind" != restore ]; then
        leaving=
        [ "$j_kind" != rollback ] || leaving=$j_origin
        grep -qs "^deployment=$j_id\$" "$own"/marks/*.good || mark_good "$j_target" "$leaving" "$j_id"
    fi
    rm -f "$own/trial" "$own/emergency"   # a way back that was interrupted before is overtaken
    resume_application
    written=$(record "$j_id" "${j_kind:-deploy}" "$j_origin" "$j_target" succeeded "${began:-$(moment)}" "finished after an interruption, by $1")
    unwritten=
    add_to_history "$written" "$j_id" || unwritten=1
    journal_end "$journal" "$written" $unwritten
    log "[$j_id] ${j_kind:-deploy} ${j_target:-?}: succeeded: finished after an interruption, by $1"
}

undo_one() {
    say "The deployment of ${j_target:-?} was interrupted: it is undone."
    # From here on it goes back, whoever goes on with it: a restore that was taken back leaves nothing else that tells so. Where lines
    # were lost the disk tells. What cannot be written hinders nothing
    if [ -n "$sha_tool" ] && [ "$j_lost" = 0 ] && ! journal_failed; then
        phase=$(journal_phase)
        journal_add "$journal" failed "{\"code\":\"deployment-interrupted\",\"message\":\"updater was killed, or the machine stopped, in phase ${phase:-begin}\"}" ||
            warn 'that it goes back was not recorded (a full disk?)'
    fi
    touched=0
    if journal_has intent stop || { [ "$j_lost" = 1 ] && [ -n "$j_target" ]; }; then touched=1; fi
    here=$(in_service) || here=
    if [ -n "$j_target" ] && [ "$j_target" != "$j_origin" ]; then
        stop_processes "$j_target" || trouble=1
    elif [ "$j_lost" = 1 ] || journal_has intent start || journal_has intent restore; then
        stop_processes || trouble=1
    fi
    rm -f "$own/trial"
    if [ -n "$j_target" ] && [ "$here" = "$j_target" ] && [ "$j_target" != "$j_origin" ]; then
        if [ -n "$j_origin" ] && [ -d "$root/releases/$j_origin" ]; then
            put_in_service "$j_origin" || trouble=1
            say "  current is $j_origin again"
        elif [ -z "$j_origin" ] && [ -n "$j_lines" ]; then
            rm -f "$root/current"
            if [ -L "$root/VERSION" ]; then rm -f "$root/VERSION"; fi
            say '  nothing was in service before, and nothing is now'
        fi
    fi
    if ! data_undo; then
        problem "the data could not be moved back by this script; both states are still there (shared/.updater-$j_id)"
        if [ "${give_up:-0}" = 1 ]; then
            # both stay where they are, as updater does it when it gives up; nothing moves them under a running application
            mv -f "$own/swap.json" "$own/swap-$j_id.kept.json" && flush
        else
            trouble=1 data_trouble=1
        fi
    fi
    settings_undo "$j_id"
    if journal_has intent load || { journal_has intent migrate && grep -q '^[[:space:]]*\[backup\.dumps\.' "$root/updater.toml" 2>/dev/null; }; then
        backup=$(backup_of_journal)
        warn "other databases may be half changed; what they held is in ${backup:-the last backup}: updater backup restore ${backup:-ID} --only dumps"
    fi
    resume_application
    if [ "$2" = 1 ] && [ $touched = 1 ] && [ -n "$j_ran" ] && ! journal_is_ours; then
        warn "this root is a copy, and what ran belongs to the one it was copied from: nothing is started. To start it: updater start, or $(command_line emergency_rollback.sh "${j_origin:-VERSION}")"
    elif [ "$2" = 1 ] && [ $touched = 1 ] && [ "$data_trouble" = 1 ]; then   # what it wrote now would be lost when they are
        warn 'nothing is started before the data are back'
    elif [ "$2" = 1 ] && [ $touched = 1 ] && [ -n "$j_origin" ]; then
        for name in $j_ran; do
            is_name "$name" && [ -f "$own/launchers/$j_origin/$name" ] || continue
            start_process "$j_origin" "$name" || trouble=1
        done
    fi
    outcome=failed
    [ $touched = 0 ] || outcome=rolled-back
    [ "$trouble" = 0 ] || { warn "the interrupted deployment stays on record: $(command_line cleanup_failed_update.sh), or updater recover, tries again"; return 1; }
    written=$(record "$j_id" "${j_kind:-deploy}" "$j_origin" "$j_target" "$outcome" "${began:-$(moment)}" "undone after an interruption, by $1${kept_data:+; what ${j_target:-the release} wrote is kept in $kept_data}" 'updater was killed, or the machine stopped')
    unwritten=
    add_to_history "$written" "$j_id" || unwritten=1
    journal_end "$journal" "$written" $unwritten
    log "[$j_id] ${j_kind:-deploy} ${j_target:-?}: $outcome: undone after an interruption, by $1"
}

backup_of_journal() {   # the backup that the deployment made last
    printf '%s\n' "$j_lines" | sed -n 's/.*"backup":"\(backup_[0-9_]*\)".*"kind":"done".*/\1/p' | tail -n 1
}
