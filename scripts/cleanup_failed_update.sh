#!/bin/sh
# Brings an interrupted deployment to its end and removes what it left: unfinished releases, temporary names. Needs no Python.
case ${ZSH_VERSION:+${ZSH_NAME-}} in '' | sh) ;; *) exec /bin/sh "$0" "$@" ;; esac   # zsh by its own name: `path` and `status` are taken there
scripts=$(dirname -- "$0")
# shellcheck source=scripts/lib.sh
. "$scripts/lib.sh"
# shellcheck source=scripts/lib_undo.sh
. "$scripts/lib_undo.sh"

usage() {
    cat <<HELP
usage: sh $0 [options]

Undoes a deployment that was interrupted (or finishes one that counts already), starts what ran before, and removes what is
unfinished: releases without a seal, temporary names of updater's own making. Never a release that is in service, good,
pinned or unknown, and never anything below shared/ but temporary names of backups.

  --bad       remove the releases that failed as well (marked bad, never good, not pinned, not in service)
  --dry-run   show what would be done, and change nothing
  --yes       ask nothing
  --root DIR  the root; else the one that this script lies in
  --help      this text

Ends with 0: nothing is unfinished any more · 2 wrong usage · 3 the root cannot be written · 5 it could not be undone whole, or data are not
in their place since a way back was given up · 6 another operation holds the lock · 130 cancelled
HELP
}

bad=0
while [ $# -gt 0 ]; do
    if common_option "$@"; then shift $shifts; continue; fi
    case $1 in
        --bad) bad=1 ;;
        *) usage_error "there is no option $1" ;;
    esac
    shift
done
find_root "$0"

is_ours_temporary() {   # a name that updater makes, and no other: .tmp-NAME-PID-8 hex digits, or with the id of a deployment
    printf '%s\n' "$1" | grep -Eq '^\.tmp-.*-([0-9]+-[0-9a-f]{8}|[0-9]{8}T[0-9]{6}-[0-9a-f]{6})$'
}

# doomed: what would be removed, one path on each line
doomed() {
    current=$(in_service) || current=
    for place in "$root"/releases/*; do
        version=${place##*/}
        [ -d "$place" ] && [ ! -L "$place" ] && [ "$version" != "$current" ] || continue
        if ! sealed "$version" && [ -f "$place/.release/unfinished" ]; then
            say "$place"
        elif [ $bad = 1 ] && sealed "$version" && is_bad "$version" && ! is_good "$version" && [ ! -e "$own/marks/$version.pinned" ] \
            && [ "$(version_of "$own/good")" != "$version" ] && [ "$(version_of "$own/previous")" != "$version" ] \
            && ! living | grep -qF " $version"; then
            say "$place"
        fi
    done
    for directory in "$root" "$root/releases" "$root/scripts" "$root/shared/backups" "$logs" "$own" "$own/marks" "$own/journal" \
        "$own/journal/closed" "$own/run" "$own/cache" "$own/cache/http" "$own/launchers" "$own"/launchers/* "$own/configurations" \
        "$own/config" "$own/config/.sets"; do
        for place in "$directory"/.tmp-*; do
            if { [ -e "$place" ] || [ -L "$place" ]; } && is_ours_temporary "${place##*/}"; then say "$place"; fi
        done
    done
}

# remove PATH: renamed first, so that half of it is never taken for whole. Files are shared with other releases by hard links:
# only directories get a new mode.
remove() {
    case ${1##*/} in
        .tmp-*) gone=$1 ;;
        *) gone=$(dirname -- "$1")/$(temporary "${1##*/}"); mv -f "$1" "$gone" || return 1 ;;
    esac
    if [ -d "$gone" ] && [ ! -L "$gone" ]; then find "$gone" -type d -exec chmod u+rwx {} + 2>/dev/null; fi
    rm -rf "$gone"
}

step "Cleaning up $root"
if [ $dry_run = 1 ]; then
    for journal in "$own"/journal/*.jsonl; do
        [ -f "$journal" ] || continue
        journal_load "$journal"
        if journal_ended; then journal_waits; continue; fi
        if journal_committed; then word='to be finished'; else word='to be undone'; fi
        say "  $word: $j_id, ${j_kind:-deployment} of ${j_target:-?}"
    done
    doomed | while IFS= read -r path; do say "  to be removed: ${path#"$root/"}"; done
    if is_missing; then say "  $absent"; fi
    who=$(holder) && say "  another operation is at work now, so it would refuse: $who"
    exit 0
fi
[ -z "$(interrupted_journals)" ] || ask 'Undo the deployment that was interrupted, and start what ran before?'
warn_root
take_lock cleanup_failed_update.sh
end_interrupted cleanup_failed_update.sh 1 || exit 5
[ -n "$(open_journals)" ] || settle_moves || fail 5 'data of an earlier operation are still on the move, and could not be tidied up' 'Nothing of them was changed.' "updater recover; or see that the disk is not full (df), then run this again"
[ -n "$ended" ] || good 'no deployment is unfinished'

spare
found=$(doomed)
if [ -n "$found" ]; then
    printf '%s\n' "$found" | while IFS= read -r path; do say "  ${path#"$root/"}"; done
    ask 'Remove these?'
    printf '%s\n' "$found" | while IFS= read -r path; do
        version=${path##*/}
        if remove "$path"; then
            case $path in "$root"/releases/"$version") rm -f "$own/marks/$version.bad" ;; esac
        else
            warn "could not be removed: $path"
        fi
    done
    log "cleaned up by cleanup_failed_update.sh: $(printf '%s\n' "$found" | wc -l | tr -d ' ') names"
fi
good "in service: $(in_service || printf nothing)"
if is_missing; then
    warn_missing
    exit 5
fi
exit 0   # whether or not anybody hears the last words
