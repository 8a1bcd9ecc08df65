#!/bin/sh
# Updates by hand, one step after the other, where updater itself does not run: a release from GitHub, a folder or a file.
case ${ZSH_VERSION:+${ZSH_NAME-}} in '' | sh) ;; *) exec /bin/sh "$0" "$@" ;; esac   # zsh by its own name: `path` and `status` are taken there
scripts=$(dirname -- "$0")
# shellcheck source=scripts/lib.sh
. "$scripts/lib.sh"
# shellcheck source=scripts/lib_undo.sh
. "$scripts/lib_undo.sh"
# shellcheck source=scripts/lib_backup.sh
. "$scripts/lib_backup.sh"
# shellcheck source=scripts/lib_release.sh
. "$scripts/lib_release.sh"

usage() {
    cat <<HELP
usage: sh $0 [TAG|FILE] [options]

Installs a release and puts it into service: the release TAG (without it the newest one) from where updater.toml says, or a FILE
(.tar.gz, .tgz, .tar.zst). Afterwards it is a release like any other: updater verify, activate and rollback work on it. Until the
application is stopped nothing of it is touched; if the new release fails afterwards, the old one is put back.

  --tag TAG        what the release in FILE is called; else by its name, or its file VERSION
  --install-only   stop before the application is touched
  --skip-migrate   go on although updater.toml has a migration: a shell cannot rehearse one, and runs none
  --force          go on although the release is marked bad
  --dry-run        show what would be done, and change nothing
  --yes            ask nothing: also without a backup of today, and with nothing that proves the file
  --root DIR       the root; else the one that this script lies in
  --help           this text

It needs curl for GitHub, and a Python (or uv) to build the release's environment with.

Ends with 0: done, or nothing to do · 2 wrong usage · 3 refused, nothing was changed · 4 it failed, and the old release is back · 5 so did
the way back · 6 another operation holds the lock · 7 it is not what was published · 8 no such release, or no network · 130 cancelled
HELP
}

wanted='' tag='' force=0 skip_migrate=0 install_only=0
while [ $# -gt 0 ]; do
    if common_option "$@"; then shift $shifts; continue; fi
    case $1 in
        --tag) [ $# -ge 2 ] || usage_error '--tag needs a word'; tag=$2; shift ;;
        --tag=*) tag=${1#--tag=} ;;
        --install-only) install_only=1 ;;
        --skip-migrate) skip_migrate=1 ;;
        --force) force=1 ;;
        -*) usage_error "there is no option $1" ;;
        *) [ -z "$wanted" ] || usage_error 'one TAG or FILE at most'; wanted=$1 ;;
    esac
    shift
done
case $wanted in
    */* | *.tar.gz | *.tgz | *.tar.zst)
        if [ -f "$wanted" ]; then
            artifact_file=$(cd -- "$(dirname -- "$wanted")" && pwd -P)/${wanted##*/}
        else
            case $wanted in *.tar.gz | *.tgz | *.tar.zst) fail 8 "there is no file $wanted" 'Nothing was changed.' ;; esac
        fi
        ;;
esac
artifact_file=${artifact_file-}
find_root "$0"
backups=$root/shared/backups config=$root/updater.toml
trap 'exit 130' INT HUP TERM

if exists "$own/hold"; then
    why=$(sed -n 's/.*"reason": *"\([^"]*\)".*/\1/p' "$own/hold" 2>/dev/null)
    fail 3 "updates are held${why:+: $why}" 'Nothing was changed.' 'updater release-hold, or where it does not run: rm '"$(quoted "$own/hold")"
fi

# ---------------------------------------------------------------- 1 resolve: which release

step '1 resolve'
from=$(in_service) || from=
refuse_odd_current
resolve
is_tag "$tag" || fail 2 "$tag cannot be the name of a release" 'Nothing was changed.' 'it begins with a letter or digit, then letters, digits and . _ + @ - only; give another by --tag'
coming=$(printf '%s' "$tag" | tr / -)
say "  in service: ${from:-nothing}"
say "  release:    $coming, from $origin_text"
if is_bad "$coming" && [ $force = 0 ]; then
    fail 3 "$coming is marked bad: $(field "$own/marks/$coming.bad" reason)" 'Nothing was changed.' 'another release, or this one all the same: --force'
fi
installed=0 other_content="$coming is installed already, with other content: the same tag must never mean two things"
anew() { printf 'ask the publisher which one is right; to install it anew, first: mv %s %s' "$(quoted "$root/releases/$coming")" "$(quoted "$root/$coming.aside")"; }
if sealed "$coming"; then
    same_release
    case $? in
        0) installed=1; say '  it is installed already, with the same content' ;;
        1) fail 7 "$other_content" 'Nothing was changed.' "$(anew)" ;;
    esac
    if [ $installed = 1 ] && [ "$coming" = "$from" ] && [ "$(version_of "$own/good")" = "$coming" ]; then
        say "$coming is in service already; nothing to do."
        exit 0
    fi
fi

# ---------------------------------------------------------------- 2 preflight: may it be

step '2 preflight'
[ -n "$sha_tool" ] || fail 3 'neither sha256sum nor shasum is here' 'Nothing was changed.' 'install one (coreutils, or perl), and run this again'
if has_table migrate && [ $skip_migrate = 0 ] && [ $install_only = 0 ]; then
    fail 3 'updater.toml has a migration ([migrate]): a shell can neither rehearse it nor take it back' 'Nothing was changed.' \
        "updater deploy $tag; or without the migration, if this release needs none: --skip-migrate"
fi
shared_links=$(toml "$config" shared)
case $?,$(printf '%s\n' "$shared_links" | awk -F '\t' 'NF && NF != 2 { print "odd" }') in
    2,* | *odd*) fail 3 'a shell cannot read [shared] in updater.toml' 'Nothing was changed.' 'write each line as "path in the release" = "path in shared", or use updater deploy' ;;
esac
check_links || fail 3 '[shared] in updater.toml names what cannot be linked' 'Nothing was changed.' 'correct it, and run this again'
[ "$installed" = 1 ] || choose_python
look_running
[ $install_only = 1 ] || refuse_lost
if has_table gate; then warn 'updater.toml asks the application whether it may be interrupted ([gate]): a shell cannot. Look yourself'; fi
good 'nothing bars the way'
if [ $dry_run = 1 ]; then
    say "It would install $coming, stop ${names:-nothing}, put current to releases/$coming, start it, and look whether it is healthy."
    who=$(holder) && say "Another operation is at work now, so it would refuse: $who"
    exit 0
fi
[ $install_only = 1 ] || warn_missing
if [ $install_only = 1 ]; then ask "Install $coming?"; else ask "Install $coming, and put it into service?"; fi

take_lock manual_update.sh
trap 'rm -rf "$work"; release_lock' EXIT
end_interrupted manual_update.sh 1 || fail 5 'an earlier operation was interrupted, and could not be undone whole' 'Nothing of this one was begun.' "$(command_line cleanup_failed_update.sh), or updater recover; then run this again"
from=$(in_service) || from=
began=$(moment)
look_running
[ $install_only = 1 ] || refuse_lost
kind=deploy
[ $install_only = 0 ] || kind=fetch
request="{\"force\":false,\"kind\":\"$kind\",\"origin\":\"script\",\"user\":$(json "$(id -un 2>/dev/null)"),\"wanted\":$(json "$tag")}"
# shellcheck disable=SC2086
journal_begin "$request" "$(world_before $names)" || fail 3 'no record of it can be written' 'Nothing was changed.' 'see whether the disk is full or read-only: df, mount'
stopped=0 target_started=0

finish() {   # finish OUTCOME TEXT [ERROR]
    written=$(record "$j_id" $kind "$from" "$coming" "$1" "$began" "$2" "${3-}")
    unwritten=
    add_to_history "$written" "$j_id" || unwritten=1
    j_lines=$(journal_read "$journal")
    journal_end "$journal" "$written" $unwritten || warn 'the end of it was not recorded'
    log "[$j_id] $kind $coming: $1: $2${3:+: $3}"
}

# go_back CODE WHY [NEXT]: before the stop nothing is in service that was not; after it the old release comes back
go_back() {
    trap : INT HUP TERM   # not ignored: what is started from here on would ignore them as well
    code=$1 why_back=$2 next=${3-} trouble=0
    problem "$why_back"
    end_build
    free_ballast
    journal_line failed '' "{\"code\":\"deployment-failed\",\"message\":$(json "$why_back")}" || :
    remove_tree "$root/releases/.tmp-unpack-$j_id"
    if [ -f "$root/releases/$coming/.release/unfinished" ] && ! sealed "$coming"; then remove_tree "$root/releases/$coming"; fi
    if [ $target_started = 1 ]; then stop_processes "$coming" || trouble=1; fi
    rm -f "$own/trial"
    if [ $stopped = 1 ]; then
        step 'Going back'
        if [ "$(in_service)" = "$coming" ] && [ "$coming" != "$from" ]; then
            if [ -n "$from" ]; then put_in_service "$from" || trouble=1; else rm -f "$root/current"; fi
        fi
        for name in $names; do
            if start_process "$from" "$name"; then good "$name of $from"; else trouble=1; fi
        done
        only=$names
        if [ -n "$names" ] && ! wait_healthy "$from" "$(patience "$from")"; then problem "$from is not healthy: $why"; trouble=1; fi
    fi
    if [ $trouble = 1 ]; then
        log "[$j_id] $kind $coming: the way back failed: $why_back"
        finish rollback-failed 'by manual_update.sh' "$why_back"
        detail "Next: $(command_line emergency_rollback.sh)"
        exit 5
    fi
    outcome=failed
    [ $stopped = 0 ] || outcome=rolled-back
    [ "$code" != 130 ] || outcome=cancelled
    finish $outcome 'by manual_update.sh' "$why_back"
    if [ $stopped = 1 ]; then
        [ "$code" = 130 ] || code=4
        detail "${from:-nothing} is in service again${names:+, and $names runs}."
    else
        detail "Nothing was changed: ${from:-nothing} is in service."
    fi
    [ -z "$next" ] || detail "Next: $next"
    exit "$code"
}
noted() { journal_line "$@" || go_back 3 'its record cannot be written any more (a full disk?)'; }
trap 'go_back 130 cancelled' INT HUP TERM
noted intent resolve
noted 'done' resolve "{\"digest\":null,\"installed\":$([ $installed = 1 ] && echo true || echo false),\"nothing\":null,\"tag\":$(json "$tag"),\"version\":\"$coming\"}"

# ---------------------------------------------------------------- 3 to 7: it becomes a release; none of them touches the application

dest=$root/releases/$coming unpacked=$root/releases/.tmp-unpack-$j_id
if [ $installed = 0 ]; then
    step '3 fetch'
    noted intent fetch
    mkdir -m 755 "$unpacked" || go_back 3 "$unpacked could not be made" 'see whether the disk is full: df'
    fetch
    good "$artifact_name, $artifact_size bytes"

    step '4 verify'
    noted intent verify
    prove
    check_archive

    step '5 unpack'
    noted intent unpack
    unpack_archive
    good "$(wc -l <"$unpacked/manifest" | tr -d ' ') paths, sha256:$digest"
fi
if [ $installed = 0 ] && sealed "$coming"; then
    grep -q "\"digest\": *\"sha256:$digest\"" "$dest/.release/release.json" || go_back 7 "$other_content" "$(anew)"
    say '  it is installed already, with the same content'
    remove_tree "$unpacked"
    installed=1
fi
if [ $installed = 0 ]; then
    mkdir "$tree/.release" && printf '%s\n' "$j_id" >"$tree/.release/unfinished" || go_back 3 'the release could not be written' 'see whether the disk is full: df'
    if [ -d "$dest" ] && [ -f "$dest/.release/unfinished" ]; then remove_tree "$dest"; fi
    if exists "$dest"; then go_back 3 "$dest is there, and it is no release that updater knows" "look what it is, and move it away: mv $(quoted "$dest") $(quoted "$dest.aside")"; fi
    mv "$tree" "$dest" || go_back 3 "$dest could not be made"

    step '6 build'
    noted intent build
    build

    step '7 seal'
    noted intent seal
    link_shared
    seal
    good "$coming is installed"
else
    changed=$(verified "$coming") || go_back 7 "$coming was changed since it was installed: $(oneline "$changed")" 'another release'
fi
if [ $install_only = 1 ]; then
    finish succeeded 'by manual_update.sh'
    say "$green$coming is installed.$plain To put it into service: updater activate $coming, or $(command_line manual_update.sh "$coming")"
    exit 0
fi

# ---------------------------------------------------------------- 9 backup: what could be lost

step '9 backup'
noted intent backup
day_ago=$(($(clock) - 86400))
cutoff=$(date -u -d "@$day_ago" +%Y%m%d_%H%M%S 2>/dev/null || date -u -r "$day_ago" +%Y%m%d_%H%M%S 2>/dev/null) || cutoff=99999999_999999
newest=$(all_backups | tail -n 1)
if [ -n "$newest" ] && looks_whole "$newest" && [ "$(printf '%s\n%s\n' "$newest" "backup_$cutoff" | sort | tail -n 1)" = "$newest" ]; then
    good "$newest is of the last 24 hours"
elif [ "$yes" = 1 ]; then
    warn "there is no backup of the last 24 hours (the newest: ${newest:-none}); gone on by --yes"
else
    warn "there is no backup of the last 24 hours (the newest: ${newest:-none}). A shell cannot make a verified one."
    say '  What the new release writes to the data stays there when the old one is put back; if it changes a schema, the old one may not be able to'
    say '  read them. With a backup that can be undone: updater backup create (or stop the application, and copy shared/ elsewhere).'
    printf '%sGo on without?%s [y/N] ' "$bold" "$plain"
    read -r answer || answer=
    case $answer in y | Y | yes | Yes | YES) ;; *) go_back 130 cancelled ;; esac
fi
[ -z "$from" ] || [ "$from" = "$coming" ] || make_launchers

# ---------------------------------------------------------------- 11 to 17: the old one out, the new one in

step '11 stop'
noted intent stop
stopped=1
stop_processes || go_back 4 'something of the application could not be stopped' "end it by hand (see ps), or $(command_line force_stop.sh); then run this again"
good 'nothing of the old release runs'

step '13 activate'
noted intent activate
put_in_service "$coming" || go_back 4 'current could not be changed'
good "current -> releases/$coming"

to_start=$(names_of "$coming")
step '14 start'
noted intent start
printf '%s\n' "$coming" | write "$own/trial" || :
if [ -z "$to_start" ]; then
    if has_table processes; then
        warn "nothing tells a shell how to start $coming: no earlier release has launchers. Next: updater start"
    else
        say '  no processes are configured: start the application in the way that you start it'
    fi
fi
target_started=1
sick() {   # sick WHY: a release that fails and was never good is marked bad
    if ! is_good "$coming"; then printf 'at=%s\nreason=%s\ndeployment=%s\n' "$(moment)" "$(oneline "$1")" "$j_id" | write "$own/marks/$coming.bad" || :; fi
    go_back 4 "$coming failed: $1" 'fix the release, and publish it under a new tag'
}
for name in $to_start; do
    start_process "$coming" "$name" || sick "$name did not start"
    good "$name of $coming"
done

if [ -n "$to_start" ]; then
    step '15 probe'
    noted intent probe
    wait_healthy "$coming" "$(patience "$coming")" || { evidence "$who"; sick "$why"; }
    good 'healthy'
    watch=$(toml "$config" health watch) || watch=60
    watch=${watch%%.*}
    step "16 watch (${watch:-0} s)"
    noted intent watch
    until_=$(($(clock) + ${watch:-0}))
    while [ "$(clock)" -lt "$until_" ]; do
        healthy_once "$coming" || { evidence "$who"; sick "$why"; }
        sleep 1
    done
    healthy_once "$coming" || { evidence "$who"; sick "$why"; }
    good 'no crash, no failed probe'
fi

step '17 commit'
noted intent commit
trap : INT HUP TERM
previous=$from
if [ -z "$from" ] || [ "$from" = "$coming" ] || ! is_good "$from" || is_bad "$from"; then previous=$(previous_good "$coming") || previous=; fi
point previous "$previous"
# the rename of the link is the commit: until it everything goes back, from it on forward
point good "$coming" || go_back 4 'the commit could not be written'
mark_good "$coming" '' "$j_id"
rm -f "$own/trial" "$own/emergency"   # a way back that was interrupted before is overtaken
finish succeeded 'by manual_update.sh'
say "$green$coming is in service${to_start:+ and healthy}.$plain"
[ ! -d "$dest/.release/shadowed" ] || say 'New keys in its settings were not added to yours; see them with: updater diff'
