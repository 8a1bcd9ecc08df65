#!/bin/sh
# Ends every process of the application at once, without asking it. Twin of `updater force-stop`; needs no Python.
case ${ZSH_VERSION:+${ZSH_NAME-}} in '' | sh) ;; *) exec /bin/sh "$0" "$@" ;; esac   # zsh by its own name: `path` and `status` are taken there
scripts=$(dirname -- "$0")
# shellcheck source=scripts/lib.sh
. "$scripts/lib.sh"

usage() {
    cat <<HELP
usage: sh $0 [options]

Kills (SIGKILL) every process that belongs to this root: those that updater started, what these started, and what a dead one left
behind. Never anything else: each is known by its pid, its start and the boot, or by the marks that its launcher gave it.
It waits for no lock; a deployment at work is told to go back, and starts nothing again. A trade in the middle of an order is cut
off: when there is time, \`updater stop\` asks first.

  --dry-run   show what would be ended
  --yes       ask nothing
  --root DIR  the root; else the one that this script lies in
  --help      this text

Ends with 0: nothing of it runs any more · 2 wrong usage · 3 it belongs to another user · 1 something could not be ended ·
130 cancelled
HELP
}

while [ $# -gt 0 ]; do
    if common_option "$@"; then shift $shifts; continue; fi
    usage_error "there is no option $1"
done
find_root "$0"

spare
gather
if [ -z "$members" ]; then
    say "Nothing of $root runs."
    exit 0
fi
say "Processes of $root:"
for one in $members; do
    file=
    for other in "$own"/run/*.pid; do
        if [ "$(recorded "$other")" = "$one" ]; then file=$other; fi
    done
    if [ -n "$file" ]; then
        label=${file##*/} label="${label%.pid} of $(field "$file" release)"
    else
        label="belongs to one of them: $(ps -o args= -p "${one%%:*}" 2>/dev/null | cut -c1-80)"
    fi
    say "  pid ${one%%:*}  $label"
done
[ $dry_run = 0 ] || exit 0
for one in $leads; do
    kill -0 "${one%%:*}" 2>/dev/null || fail 3 "pid ${one%%:*} belongs to another user, and you may not end it" 'Nothing was stopped.' 'run this as the user that started the application, or with sudo'
done
ask 'Kill them now?'
trap '' HUP   # the terminal may be one of theirs
trap : PIPE

# Noted before anything is killed: a deployment at work must not start behind your back what you kill. A disk that cannot be
# written does not stop this.
deployment=
for journal in "$own"/journal/*.jsonl; do
    if [ -f "$journal" ]; then deployment=${journal##*/} deployment=${deployment%.jsonl}; fi
done
printf 'at=%s.%s\ndeployment=%s\n' "$(clock)" "$$" "$deployment" 2>/dev/null | write "$own/force-stop" 2>/dev/null || :
if who=$(recorded "$own/lock.owner"); then
    case $(field "$own/lock.owner" operation) in
        deploy | activate | rollback | restore) kill -TERM "${who%%:*}" 2>/dev/null || : ;;
    esac
fi

kill_members || exit 1
log 'everything was stopped by force, by force_stop.sh'
say "Nothing of it runs any more."
say "Next: to start it again: updater start, or $(command_line emergency_rollback.sh "$(in_service)")"
exit 0   # whether or not anybody hears the last words
