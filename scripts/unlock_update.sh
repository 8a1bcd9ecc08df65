#!/bin/sh
# Ends an updater that hangs, frees its lock, and brings its deployment to an end. Twin of `updater unlock`; needs no Python.
case ${ZSH_VERSION:+${ZSH_NAME-}} in '' | sh) ;; *) exec /bin/sh "$0" "$@" ;; esac   # zsh by its own name: `path` and `status` are taken there
scripts=$(dirname -- "$0")
# shellcheck source=scripts/lib.sh
. "$scripts/lib.sh"
# shellcheck source=scripts/lib_undo.sh
. "$scripts/lib_undo.sh"

usage() {
    cat <<HELP
usage: sh $0 [options]

The lock of a dead updater is free by itself: then this only finishes, or undoes, what it left. One that lives is named, with how
long it has made no progress; it is ended only with --force, or once it has made none for 30 minutes, and only after a question.
Never delete .updater/lock: the lock is held by a process, not by the file.

  --force     end a holder that is getting on, too
  --dry-run   show who holds the lock and what is unfinished, and change nothing
  --yes       ask nothing (a holder that gets on needs --force as well)
  --root DIR  the root; else the one that this script lies in
  --help      this text

Ends with 0: the lock is free and nothing is unfinished · 2 wrong usage · 3 the root cannot be written · 5 what was interrupted could not be undone whole ·
6 the holder gets on, or is unknown, and was left alone · 130 cancelled
HELP
}

force=0
while [ $# -gt 0 ]; do
    if common_option "$@"; then shift $shifts; continue; fi
    case $1 in
        --force) force=1 ;;
        *) usage_error "there is no option $1" ;;
    esac
    shift
done
find_root "$0"

# recent FILE: was it written within the last half hour?
recent() { [ -n "$(find "$1" -mmin -30 2>/dev/null)" ]; }

if who=$(recorded "$own/lock.owner"); then
    say "The lock of $root is held: $(holder)"
    idle=1
    for sign in "$own/lock.owner" "$logs/update_progress.json" "$own"/journal/*.jsonl; do
        if [ -f "$sign" ] && recent "$sign"; then idle=0; fi
    done
    if [ $idle = 1 ]; then
        say '  It has made no progress for 30 minutes.'
    else
        say '  It has made progress within the last 30 minutes.'
        if [ $force = 0 ]; then
            fail 6 'it is at work' 'Nothing was changed.' "watch it (updater progress --follow); if you know that it hangs: $(command_line unlock_update.sh --force)"
        fi
    fi
    [ $dry_run = 0 ] || exit 0
    ask "End pid ${who%%:*}? What it does is undone, and the release from before is started again."
    pid=${who%%:*}
    kill -TERM "$pid" 2>/dev/null || fail 6 "pid $pid belongs to another user, and you may not end it" 'Nothing was changed.' 'run this as the user that started it, or with sudo'
    kill -CONT "$pid" 2>/dev/null   # a stopped one hears nothing else
    say '  waiting for it to go back by itself (30 s at most) ...'
    deadline=$(($(clock) + 30))
    while lives "$who" && [ "$(clock)" -lt "$deadline" ]; do nap; done
    if lives "$who"; then
        kill -9 "$pid" 2>/dev/null
        deadline=$(($(clock) + 10))
        while lives "$who" && [ "$(clock)" -lt "$deadline" ]; do nap; done
        lives "$who" && fail 6 "pid $pid is still there after SIGKILL" '' 'it hangs in the kernel (a failing disk, a dead network mount): see ps and dmesg'
        say '  it was killed'
    else
        say '  it has ended'
    fi
else
    say "No living process says that it holds the lock of $root."
fi

if [ $dry_run = 1 ]; then
    for journal in "$own"/journal/*.jsonl; do
        [ -f "$journal" ] || continue
        journal_load "$journal"
        if journal_ended; then journal_waits; else say "  unfinished: $j_id, ${j_kind:-deployment} of ${j_target:-?}"; fi
    done
    exit 0
fi
warn_root
take_lock unlock_update.sh
end_interrupted unlock_update.sh 1 || exit 5
[ -n "$ended" ] || say 'Nothing is unfinished.'
log 'the lock was freed by unlock_update.sh'
say "The lock is free; in service: $(in_service || printf nothing)"
exit 0   # whether or not anybody hears the last words
