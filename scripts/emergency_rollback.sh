#!/bin/sh
# Puts the previous good release back into service: no Python, no network, no room on the disk.
case ${ZSH_VERSION:+${ZSH_NAME-}} in '' | sh) ;; *) exec /bin/sh "$0" "$@" ;; esac   # zsh by its own name: `path` and `status` are taken there
scripts=$(dirname -- "$0")
# shellcheck source=scripts/lib.sh
. "$scripts/lib.sh"
# shellcheck source=scripts/lib_undo.sh
. "$scripts/lib_undo.sh"

usage() {
    cat <<HELP
usage: sh $0 [VERSION] [options]

Puts VERSION into service, or without it the last release that was good before the present one:
stops the application, swaps the link \`current\`, starts it again, and looks whether it is healthy.
A deployment that was interrupted is undone first. Your data stay as they are.

  --restore-data   put back the data of the backup that holds VERSION's own (the present ones are kept)
  --keep-config    leave the settings as they are, although VERSION last ran with others
  --no-start       swap only; start nothing
  --force          go on although files of VERSION have been changed, or data cannot be moved back
  --dry-run        show what would be done, and change nothing
  --yes            ask nothing
  --root DIR       the root; else the one that this script lies in
  --help           this text

A terminal that is closed meanwhile ends nothing half-way; Ctrl-C does, and the next run goes on from there.

Ends with 0: VERSION is in service and healthy · 2 wrong usage · 3 refused, nothing was changed · 5 it is not healthy ·
6 another operation holds the lock · 7 VERSION is damaged · 130 cancelled
HELP
}

wanted='' restore_data=0 keep_config=0 start=1 force=0
while [ $# -gt 0 ]; do
    if common_option "$@"; then shift $shifts; continue; fi
    case $1 in
        --restore-data) restore_data=1 ;;
        --keep-config) keep_config=1 ;;
        --no-start) start=0 ;;
        --force) force=1 ;;
        -*) usage_error "there is no option $1" ;;
        *) [ -z "$wanted" ] || usage_error 'one VERSION at most'; wanted=$1 ;;
    esac
    shift
done
find_root "$0"

no_target() {
    problem "$1"
    detail 'Nothing was changed. These releases are here:'
    list_releases >&2
    [ -n "$(installed)" ] || detail '  none: nothing can be put into service; see manual_update.sh'
    detail "Next: $(command_line emergency_rollback.sh VERSION)"
    exit 2
}

# What stands now, and where to: before anything is asked, and again under the lock.
choose() {
    refuse_odd_current
    from=$(in_service) || from=
    to=$wanted interrupted='' waiting='' id=
    for journal in "$own"/journal/*.jsonl; do
        [ -f "$journal" ] && [ ! -L "$journal" ] || continue
        journal_load "$journal"
        if journal_ended; then   # that way back has been gone: from here it leads further
            waiting=$waiting${waiting:+$line_break}$(journal_waits)
            continue
        fi
        interrupted=$journal
        # undoing it leads to the release before: that is the way back, unless somebody names another
        if [ -z "$to" ] && ! journal_committed && [ -n "$j_origin" ] && { [ "$from" = "$j_target" ] || journal_has intent stop; }; then to=$j_origin; fi
    done
    if [ -z "$to" ] && [ -f "$own/emergency" ]; then   # this script was killed: it goes on to where it went
        went=$(field "$own/emergency" to)
        # if somebody has put yet another release into service since, that note is overtaken
        if sealed "$went" && { [ "$from" = "$went" ] || [ "$from" = "$(field "$own/emergency" from)" ]; }; then to=$went; fi
    fi
    if [ -z "$to" ]; then
        to=$(previous_good "$from") || no_target 'the records name no good release to go back to'
    fi
    to=${to#releases/} to=${to%/}
    is_name "$to" || no_target "$to is not the name of a release"
    if [ ! -d "$root/releases/$to" ] && [ -d "$root/releases/v$to" ]; then to=v$to; fi
    if [ ! -d "$root/releases/$to" ] && [ -d "$root/releases/${to#v}" ]; then to=${to#v}; fi
    [ -d "$root/releases/$to" ] || no_target "there is no release $to"
    sealed "$to" || no_target "$to is unfinished: it has no seal (.release/release.json)"
    # it had come as far as the swap: what follows that is still to be done
    if [ "$from" = "$to" ] && [ "$(field "$own/emergency" to)" = "$to" ]; then
        came=$(field "$own/emergency" from)
        [ -z "$came" ] || from=$came
    fi
}

check_target() {
    changed=$(verified "$to")
    case $? in
        0) good "$to is as it was published" ;;
        2) warn "nothing here can tell whether $to is as it was published (no sha256sum, no shasum, or no sums)" ;;
        *)
            if [ $force = 0 ]; then
                problem "$to was changed since it was installed"
                printf '%s\n' "$changed" | while IFS= read -r path; do detail "$path"; done
                detail 'Nothing was changed.'
                detail "Next: another release (below), or this one all the same: $(command_line emergency_rollback.sh "$to" --force)"
                list_releases >&2
                exit 7
            fi
            warn "$to was changed since it was installed: $(oneline "$changed"); gone on by --force"
            ;;
    esac
    if [ -f "$root/releases/$to/.venv/pyvenv.cfg" ] && [ ! -x "$root/releases/$to/.venv/bin/python" ]; then
        warn "the Python of $to is gone (releases/$to/.venv/bin/python): its processes will not start before that is back"
    fi
}

# the last backup that holds the data of the release that is gone back to, by the order in which they were made
find_backup() {
    backup='' latest=-1
    for manifest in "$root"/shared/backups/backup_*/manifest.json; do
        [ -f "$manifest" ] || continue
        of=$(sed -n '/^ *"release": {/,/^ *}/s/^ *"version": "\([^"]*\)".*/\1/p' "$manifest" | head -n 1)
        [ "$of" = "$to" ] || continue
        at=$(sed -n 's/^ "seq": \([0-9][0-9]*\),\{0,1\}$/\1/p' "$manifest" | head -n 1)
        if [ "${at:-0}" -ge "$latest" ]; then backup=${manifest%/manifest.json} backup=${backup##*/} latest=${at:-0}; fi
    done
    [ -n "$backup" ] || fail 3 "there is no backup with the data of $to" 'Nothing was changed.' "see what there is: $(command_line restore_backup.sh --list); without --restore-data the present data stay"
}

step "Emergency rollback of $root"
choose
say "  in service: ${from:-nothing}"
[ -z "$interrupted" ] || say '  a deployment was interrupted, or is at work: an interrupted one is undone first'
[ -z "$waiting" ] || say "$waiting"
say "  back to:    $to"
check_target
[ $restore_data = 0 ] || find_backup

if [ $dry_run = 1 ]; then
    say 'It would: stop the application, put current to'" releases/$to"', start it, and look whether it is healthy.'
    [ $restore_data = 0 ] || say "It would put back the data of $backup."
    who=$(holder) && say "Another operation is at work now, so it would refuse: $who"
    exit 0
fi
warn_root
warn_missing
ask "Stop the application and put $to into service?"

take_lock "emergency_rollback.sh"
asked=$to
choose
[ "$to" = "$asked" ] || fail 3 "something else has been at work meanwhile: ${from:-nothing} is in service now, and the way back leads to $to" 'Nothing was changed.' "run it again: $(command_line emergency_rollback.sh)"
id=$(field "$own/emergency" id)
case $id in *[!0-9A-Za-z-]*) id= ;; esac
[ -n "$id" ] && [ "$(field "$own/emergency" to)" = "$to" ] || id=$(new_id)
began=$(moment)
# From here on a killed script can be run again: this says where it went.
note_way() { printf 'id=%s\nfrom=%s\nto=%s\nat=%s\n' "$id" "$from" "$to" "$began" | write "$own/emergency"; }
note_way || warn 'no note of this could be written (a full disk?)'

if [ -n "$interrupted$waiting" ]; then
    leaving=$from
    give_up=$force
    if ! end_interrupted emergency_rollback.sh 0; then
        [ "$data_trouble" = 0 ] || fail 5 'the data of the interrupted deployment are still on the move' "current is $(in_service || printf nothing); the application is stopped; both states of the data are there." "updater recover; or leave them where they are and go on: $(command_line emergency_rollback.sh "$to" --force)"
        warn 'the interrupted deployment could not be undone whole; the way back goes on'
    fi
    from=$(in_service) || from=$leaving
    note_way || :
fi

step 'Stopping the application'
free_ballast
if ! stop_processes; then
    fail 5 'something of the application could not be stopped' "current is still ${from:-nothing}." "end it by hand (see ps), or $(command_line force_stop.sh), then run this again"
fi
good 'nothing of it runs'

step "Putting $to into service"
put_in_service "$to" || fail 5 "current could not be changed" "current is still ${from:-nothing}, and the application is stopped." "cd $(quoted "$root") && { [ -L current ] || [ ! -e current ]; } && ln -sfn releases/$to current"
good "current -> releases/$to"
[ $keep_config = 1 ] || [ "$from" = "$to" ] || settings_back "$to" "$from"
resume_application
rm -f "$own/trial"

all_kept() { for place in "$root"/shared/.updater-kept-* "$root"/shared/*/.updater-kept-*; do [ ! -d "$place" ] || say "$place"; done; }

kept_now=''
if [ $restore_data = 1 ]; then
    step "Restoring the data of $backup"
    had_kept=$(all_kept)
    UPDATER_LOCK_HELD=$$
    export UPDATER_LOCK_HELD
    if ! (trap '' HUP PIPE; exec sh "$scripts/restore_backup.sh" "$backup" --only data --no-start --yes --root "$root"); then
        fail 5 "the data of $backup could not be put back" "$to is in service and stopped; the data are as they were." "see above; then $(command_line restore_backup.sh "$backup"), or start it as it is: $(command_line emergency_rollback.sh "$to")"
    fi
    unset UPDATER_LOCK_HELD
    kept_now=$(all_kept | while IFS= read -r place; do printf '%s\n' "$had_kept" | grep -qxF -e "$place" || say "$place"; done)
    [ -z "$kept_now" ] || kept_now="; the data that lay there before are kept in $(oneline "$kept_now")"
fi

finish() {   # finish OUTCOME TEXT [ERROR]
    written=$(record "$id" rollback "$from" "$to" "$1" "$began" "$2$kept_now" "${3-}" "$([ $restore_data = 0 ] || printf '%s' "$backup")")
    # undoing what was interrupted was the way back: that is its record
    if [ "$1" != succeeded ] || [ "$from" != "$to" ] || [ -z "${ended-}" ]; then add_to_history "$written" "$id" || :; fi
    log "[$id] rollback $to: $1: $2${3:+: $3}"
    rm -f "$own/emergency"
}

names=$(names_of "$to")
if [ $start = 0 ]; then
    finish succeeded 'by emergency_rollback.sh, without a start'
    say "$to is in service; nothing was started (--no-start)."
    exit 0
fi
if [ -z "$names" ]; then
    if grep -q '^[[:space:]]*\[\{1,2\}processes\.' "$root/updater.toml" 2>/dev/null; then
        finish rollback-failed 'by emergency_rollback.sh' 'no launchers: its processes were not started'
        problem "$to is in service, but it was not started: its launchers ($own/launchers/$to) are not there"
        detail 'Its processes, by updater.toml:'
        sed -n '/^[[:space:]]*\[processes\.[^.]*\]/p; /^[[:space:]]*command[[:space:]]*=/p' "$root/updater.toml" | sed 's/^[[:space:]]*/    /' >&2
        detail "Next: updater start, or without Python's help each by hand: cd $(quoted "$root/releases/$to") && PATH=$(quoted "$root/releases/$to/.venv/bin"):\$PATH COMMAND &"
        exit 5
    fi
    finish succeeded 'by emergency_rollback.sh'
    say "$to is in service. No processes are configured: restart the application in the way that you start it."
    exit 0
fi

step 'Starting'
for name in $names; do
    if ! start_process "$to" "$name"; then
        finish rollback-failed 'by emergency_rollback.sh' "$name did not start"
        detail "$to is in service, but $name does not run."
        data=
        [ $restore_data = 1 ] || data=" if it needs its own data: $(command_line emergency_rollback.sh "$to" --restore-data);"
        detail "Next: see the lines above;$data or another release: $(command_line emergency_rollback.sh VERSION)"
        list_releases >&2
        exit 5
    fi
    good "$name of $to"
done
if ! wait_healthy "$to" "$(patience "$to")"; then
    finish rollback-failed 'by emergency_rollback.sh' "$why"
    problem "$to is in service, but it is not healthy: $why"
    evidence "$who"
    detail "Next: if it needs its own data: $(command_line emergency_rollback.sh "$to" --restore-data); another release: $(command_line emergency_rollback.sh VERSION)"
    list_releases >&2
    exit 5
fi
previous=$(previous_good "$to") || previous=
if [ "$from" != "$to" ] || ! is_good "$to"; then
    leaving=$from
    [ "$from" != "$to" ] || leaving=
    mark_good "$to" "$leaving" "$id"
    previous=$(previous_good "$to") || previous=
fi
point previous "$previous"
point good "$to"
finish succeeded 'by emergency_rollback.sh'
say "$green$to is in service and healthy.$plain"
exit 0   # whether or not anybody hears the last words
