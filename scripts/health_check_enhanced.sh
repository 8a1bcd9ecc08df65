#!/bin/sh
# Looks at everything of a root and says what is wrong and what to type: no Python, no network, no room on the disk. Reads only.
# shellcheck disable=SC2329
case ${ZSH_VERSION:+${ZSH_NAME-}} in '' | sh) ;; *) exec /bin/sh "$0" "$@" ;; esac   # zsh by its own name: `path` and `status` are taken there
scripts=$(dirname -- "$0")
# shellcheck source=scripts/lib.sh
. "$scripts/lib.sh"
# shellcheck source=scripts/lib_checks.sh
. "$scripts/lib_checks.sh"
# shellcheck source=scripts/lib_redact.sh
. "$scripts/lib_redact.sh"

usage() {
    say "usage: sh $0 [options]

Looks at the links, releases, processes, probes, databases, disks, the lock, deployments that were interrupted, logs, the last backup
and the scripts of this root, and says for each problem what to type. It takes no lock and changes nothing.

  --fast         without the databases, and only the release in service is compared with its sums
  --report FILE  write what a maintainer would ask for into a new FILE (- is the standard output), without secrets: look through it
                 before you give it to anybody
  --json         print the verdict and every check as JSON
  --root DIR     the root; else the one that this script lies in
  --help         this text

Ends with 0: healthy · 2 wrong usage · 3 something is wrong beside the application · 4 the application is not healthy"
}

fast=0 report=
while [ $# -gt 0 ]; do
    if common_option "$@"; then shift "$shifts"; continue; fi
    case $1 in
        --fast) fast=1 ;;
        --json) as_json=1 ;;
        --report) [ $# -ge 2 ] || usage_error '--report needs a file'; report=$2; shift ;;
        --report=*) report=${1#--report=} ;;
        *) usage_error "there is no option $1" ;;
    esac
    shift
done
find_root "$0"
case $report in
    '' | -) ;;
    *)
        if [ -e "$report" ] || [ -L "$report" ]; then fail 2 "$report is there already" 'Nothing was written.' 'name another file: --report FILE'; fi
        [ -d "$(dirname -- "$report")" ] || fail 2 "there is no directory $(dirname -- "$report")" 'Nothing was written.' 'name another place: --report FILE'
        ;;
esac
[ "$report" != - ] || as_json=1   # the report is all that goes there

ill=0   # the application itself is not healthy

# wrong NAME SUMMARY REMEDY: failed, but while a deployment is at work only worth a second look
wrong() {
    if [ -n "$at_work" ]; then check warning "$1" "$2" 'a deployment is at work: look again when it has ended'; else check failed "$@"; fi
}

app_wrong() { wrong "$@"; [ -n "$at_work" ] || ill=1; }

start_again() {
    if is_missing; then printf 'first put back the data that are missing (see data)'
    elif [ -n "$version" ]; then printf 'updater start, or without Python: %s' "$(command_line emergency_rollback.sh "$(quoted "$version")")"; else printf 'updater start'; fi
}

blind=0   # somebody else than the owner does not see everything

look_root() {
    owner=$(owner_of "$root") me=$(myself)
    if [ "$me" != "$owner" ] && [ "$(id -u)" != 0 ]; then blind=1; fi
    if is_read_only "$root" || { [ ! -w "$root" ] && { [ "$me" = "$owner" ] || [ "$(id -u)" = 0 ]; }; }; then
        check failed root "$root cannot be written, not even by $me" 'see dmesg for a failing disk, and remount it: mount -o remount,rw'
    elif [ $blind = 1 ]; then
        check warning root "$root belongs to $owner, and you are $me: some of it cannot be seen" "sudo -u $(quoted "$owner") $(command_line health_check_enhanced.sh)"
    else
        check ok root "$root, owned by $owner"
    fi
    [ -f "$root/updater.toml" ] || check warning root 'updater.toml is not there: nothing can be deployed' 'put it back from a backup (restore_backup.sh), or: updater init'
    [ -d "$own" ] || check failed root '.updater is not there: which releases are good, and what runs, is not on record any more' "updater init $(quoted "$root"), then updater start; the link current decides what is in service"
    [ -d "$root/shared" ] || check failed root 'shared/ is not there: that is where the data are' "put it back: $(command_line restore_backup.sh)"
}

look_links() {
    version=$(in_service) || version=
    good=$(version_of "$own/good") || good=
    way=$(previous_good "$version") || way=
    back=$(command_line emergency_rollback.sh "$(quoted "${good:-${way:-VERSION}}")")
    if [ -L "$root/current" ] && [ -z "$version" ]; then
        check failed current "current leads to $(readlink "$root/current"), which is no release below releases/" "$back"
    elif [ -L "$root/current" ] && [ ! -d "$root/releases/$version" ]; then
        check failed current "current leads to $version, which is not there" "$(command_line emergency_rollback.sh "$(quoted "${way:-VERSION}")")"
        ill=1 version=
    elif [ -e "$root/current" ] && [ ! -L "$root/current" ]; then
        check failed current 'current is not a symlink but a real directory or file; updater made no such thing' "look at what is in it, then: cd $(quoted "$root") && mv current current.aside && $back"
    elif [ -z "$version" ]; then
        if [ -n "$way" ]; then check failed current 'nothing is in service' "$back"; else check warning current 'nothing is in service' 'updater deploy'; fi
    elif [ -n "$good" ] && [ "$good" != "$version" ] && [ -z "$(interrupted_journals)" ]; then
        check warning current "$version is in service, put there by hand: the last good release by the records is $good" "leave it (the link is taken as the truth), or go back: $back"
    elif ! sealed "$version"; then
        check warning current "$version is in service; updater did not install it, so it cannot be compared with anything" 'nothing, if you put it there'
    else
        check ok current "$version is in service$([ "$good" != "$version" ] || printf ', good')"
    fi
    if [ -L "$root/VERSION" ]; then
        [ "$(readlink "$root/VERSION")" = current/VERSION ] || check warning VERSION "VERSION leads to $(readlink "$root/VERSION"), not to current/VERSION" "cd $(quoted "$root") && ln -sfn current/VERSION VERSION"
    elif [ -e "$root/VERSION" ]; then
        check note VERSION 'VERSION is a file and no link: it is left alone, and may tell another release'
    fi
    for link in good previous; do
        if [ -e "$own/$link" ] && [ ! -L "$own/$link" ]; then
            check failed "$link" ".updater/$link is not a symlink: the next deployment could not be committed" "mv $(quoted "$own/$link") $(quoted "$own/$link.aside")"
        elif [ -L "$own/$link" ] && [ ! -d "$own/$link/" ]; then
            check warning "$link" ".updater/$link leads to $(readlink "$own/$link"), which is not there" 'updater releases shows what is; the next deployment sets it anew'
        fi
    done
    if [ -n "$way" ]; then check ok previous "the way back leads to $way"; elif [ -n "$version" ]; then check note previous 'there is no other good release to go back to'; fi
}

look_release() {   # VERSION
    if [ "$1" = "$version" ] || [ "$1" = "$way" ]; then bad=failed; else bad=warning; fi
    other="another release: $(command_line emergency_rollback.sh VERSION)"
    if [ $fast = 0 ] || [ "$1" = "$version" ]; then
        changed=$(verified "$1")
        case $? in
            0) as=', as it was published' ;;
            2) as=', not compared: no sha256sum, no shasum, or no sums' ;;
            *)
                as=', changed since it was installed'
                check $bad releases "$1 was changed since it was installed: $(oneline "${changed:-its sums cannot be read}")" "updater verify $(quoted "$1") tells more; $other"
                ;;
        esac
    else as=''; fi
    if is_bad "$1"; then as="$as, marked bad: $(field "$own/marks/$1.bad" reason)"; fi
    python_works "$1"
    case $? in
        0) check ok releases "$1$as, its Python starts" ;;
        1)
            if [ $blind = 1 ]; then check note releases "$1$as; whether its Python starts, $me may not see"; return; fi
            check $bad releases "$1: $why" "build it anew: updater fetch --rebuild $(quoted "$1"); $other"
            ;;
        2) check note releases "$1$as; it has no environment" ;;
    esac
}

look_releases() {
    for place in "$root"/releases/*; do
        if sealed "${place##*/}"; then
            look_release "${place##*/}"
        elif [ -d "$place" ] && [ ! -L "$place" ] && [ -z "$at_work" ]; then
            if [ -e "$place/.release/unfinished" ]; then
                check warning releases "${place##*/} is unfinished: it has no seal" "$(command_line cleanup_failed_update.sh)"
            elif [ "${place##*/}" != "$version" ]; then
                check note releases "${place##*/} was not installed by updater"
            fi
        fi
    done
}

look_pid_file() {   # FILE
    name=${1##*/} name=${name%.pid}
    release=$(field "$1" release)
    case " $(oneline "$names") " in *" $name "*) known=1 ;; *) known=0 ;; esac
    if one=$(recorded "$1"); then
        case " $versions " in *" $release "*) ;; *) versions="$versions $release" ;; esac
        about="$name: pid ${one%%:*} of $release, since $(field "$1" since), identity $one"
        if [ -n "$(field "$1" stopping)" ]; then
            check warning processes "$about: it has been told to stop, and still lives" "wait for it; then $(start_again); if it does not end: $(command_line force_stop.sh)"
        elif [ "$release" != "$version" ]; then
            app_wrong processes "$about, while ${version:-nothing} is in service" "updater restart, or without Python: $(command_line emergency_rollback.sh "$(quoted "${version:-VERSION}")")"
        else
            check ok processes "$about"
        fi
    elif ! is_ours "$(field "$1" root)"; then
        check note processes "$name: its pid file is of another root, of which this one is a copy"
    elif [ $known = 1 ]; then
        app_wrong processes "$name does not run: pid $(field "$1" pid) of $release, started $(field "$1" since), has died" "$(start_again); why it died: $(quoted "$logs/$name.log")"
    else
        check note processes "$name: its pid file names nothing that lives; the next start removes it"
    fi
}

look_marked() {   # "PID PROCESS RELEASE": a process that a launcher of this root started, or that such a one started
    pid=${1%% *} rest=${1#* }
    name=${rest%% *} release=${rest#* }
    case " $versions " in *" $release "*) ;; *) versions="$versions $release" ;; esac
    file=$own/run/$name.pid
    if ! one=$(recorded "$file"); then
        check warning processes "pid $pid of $name ($release) runs, but its pid file is lost, or what started it has died" "updater restart, or end it: updater stop; without Python: $(command_line force_stop.sh)"
        return
    fi
    # what began before its leader was left behind by the one before
    old=$(started "$pid") || return 0
    new=$(started "${one%%:*}") || return 0
    case $old$new in *[!0-9]*) old=0 new=0 ;; esac
    if [ "$release" != "$(field "$file" release)" ] || [ "$old" -lt "$new" ]; then
        check warning processes "pid $pid of $name ($release) was left behind and still runs" "updater restart ends it; without Python: $(command_line force_stop.sh), then $(start_again)"
    fi
}

look_processes() {
    names=$(names_of "${version:-none}") versions=
    spare
    for file in "$own"/run/*.pid; do
        if [ -f "$file" ]; then look_pid_file "$file"; fi
    done
    each look_marked "$(marked)"
    for name in $names; do
        if [ ! -f "$own/run/$name.pid" ]; then
            app_wrong processes "$name does not run" "$(start_again)"
        fi
    done
    # shellcheck disable=SC2086
    set -- $versions
    [ $# -le 1 ] || app_wrong processes "$# releases run at once: $(oneline "$*"); two of one application may do everything twice" "updater restart, or without Python: $(command_line force_stop.sh), then $(start_again)"
    if [ -n "$names$versions" ] || [ -z "$version" ]; then return 0; fi
    if [ -d "$own/launchers" ] && [ ! -x "$own/launchers" ]; then
        check note processes "which there should be, $me may not see"
    elif processes_configured; then
        app_wrong processes "there are no launchers for $version (.updater/launchers), so no shell can start it" 'updater start writes them'
    else
        check note processes 'none are configured'
    fi
}

look_probe() {   # LINE of a launcher; $name is the process, $needed whether it decides
    probe "$version" "$1"
    case $? in
        0) passed=$((passed + 1)) ;;
        1)
            if [ "$needed" = 1 ]; then
                app_wrong probes "$name: $why" "see the last lines of $(quoted "$logs/$name.log"); then updater restart, or go back: $(command_line emergency_rollback.sh)"
            else
                check warning probes "$name: $why (not required)" "see the last lines of $(quoted "$logs/$name.log")"
            fi
            ;;
        *) check note probes "$name: cannot be asked from here: ${1%% *} (curl, wget or nc is missing, or it holds a control character)" ;;
    esac
}

look_probes() {
    passed=0
    for name in $names; do
        file=$own/run/$name.pid
        if ! recorded "$file" >/dev/null || [ "$(field "$file" release)" != "$version" ]; then continue; fi
        needed=1
        each look_probe "$(launcher_says "$version" "$name" probe)"
        needed=0
        each look_probe "$(launcher_says "$version" "$name" probe-not-required)"
    done
    [ $passed = 0 ] || check ok probes "$passed answered as they should"
}

# databases: every SQLite file below shared/, by its header; of what a directory directly below it leads to as well
databases() {
    cd -- "$root/shared" 2>/dev/null || return 0
    set -- .
    for place in ./*; do
        case $place in ./backups | ./logs) continue ;; esac
        if [ -L "$place" ] && [ -d "$place" ]; then set -- "$@" "$place/"; fi
    done
    # one `head` for many files; /dev/null is there so that it names each
    limited 60 find "$@" \( -path ./backups -o -path ./logs -o -name '.updater-*' \) -prune -o -type f -size +0 -exec head -c 16 /dev/null {} + 2>/dev/null |
        tr -d '\000' | awk '/^==> .* <==$/ { it = substr($0, 5, length($0) - 8); next } /^SQLite format 3(==>|$)/ { print it }'
}

# database_state FILE: what integrity_check says
database_state() {
    uri=$(printf '%s' "$1" | sed 's/%/%25/g; s/?/%3f/g; s/#/%23/g')
    # Beside a database in WAL mode that nobody uses, an ordinary look would make two files: nobody writes, so it cannot change.
    if [ -e "$1-wal" ] && [ ! -e "$1-shm" ]; then printf 'unable: nobody has taken in its -wal yet; its next user does'; return; fi
    if [ ! -e "$1-wal" ] && [ ! -e "$1-journal" ] && [ ! -e "$1-shm" ]; then mode='mode=ro&immutable=1'; else mode='mode=ro'; fi
    said=$(cd -- "$root/shared" && limited 60 sqlite3 -batch -init /dev/null -cmd '.timeout 2000' "file:$uri?$mode" 'PRAGMA integrity_check(5);' </dev/null 2>&1)
    code=$?
    case $code in 124 | 137 | 142 | 143) printf 'unable: not checked within 60 s' ;; *) printf '%s' "$said" ;; esac
}

look_database() {   # PATH below shared/
    shown=shared/${1#./}
    said=$(cd -- "$root/shared" 2>/dev/null && database_state "$1")
    case $said in
        ok) sound=$((sound + 1)) ;;
        *locked* | *busy*) check note databases "$shown is in use just now, so it was not checked" ;;
        unable* | *'unable to open'* | *readonly* | *read-only* | *'disk I/O'*) check note databases "$shown was not checked: $(oneline "$said")" ;;
        *) check failed databases "$shown is damaged: $(oneline "${said:-sqlite3 says nothing}")" "stop the application, then go back to a backup: $(command_line restore_backup.sh); or mend it: sqlite3 $(quoted "$root/$shown") .recover" ;;
    esac
}

look_databases() {
    if [ $fast = 1 ]; then check note databases 'not looked at (--fast)'; return; fi
    found=$(databases)
    [ -n "$found" ] || { check ok databases 'there are no SQLite files'; return; }
    if ! has sqlite3; then
        check note databases "$(printf '%s\n' "$found" | grep -c '') SQLite files, not checked: sqlite3 is not installed"
        return
    fi
    sound=0
    each look_database "$found"
    [ $sound = 0 ] || check ok databases "$sound whole by integrity_check"
}

look_disks() {
    mounts=$newline
    for place in "$root" "$root/releases" "$own" "$root/shared" "$root"/shared/*; do
        [ -d "$place" ] || continue
        if ! room "$place"; then
            check warning disk "nothing tells how much room there is for $place (df does not answer)" 'look for a network mount that is dead: mount'
            continue
        fi
        case $mounts in *"$newline$r_mount$newline"*) continue ;; esac
        mounts=$mounts$r_mount$newline
        said="$r_mount: $(megabytes "$r_free") of $(megabytes "$r_total") free${r_inodes:+, $r_inodes inodes}"
        remedy="remove old releases and backups (updater prune, updater backup prune), old logs, or what a failed update left: $(command_line cleanup_failed_update.sh). The way back needs no room"
        if [ "$r_free" -lt 16384 ] || [ "${r_inodes:-1000}" -lt 100 ]; then
            check failed disk "full: $said" "$remedy"
        elif [ "$r_free" -lt 65536 ] || [ $((r_free / 20)) -lt $((r_total / 400)) ] && [ "$r_free" -lt 1048576 ] || [ "${r_inodes:-1000}" -lt 1000 ]; then
            check warning disk "nearly full: $said" "$remedy"
        else
            check ok disk "$said"
        fi
    done
}

# unknown_holders: pids that hold flock(2) on the lock's file by the kernel's own table (Linux)
unknown_holders() {
    [ -r /proc/locks ] && [ -f "$own/lock" ] || return 0
    inode=$(ls -i "$own/lock" | awk '{ print $1 }')
    awk -v inode="$inode" '$2 == "FLOCK" { n = split($6, of, ":"); if (of[n] == inode) print $5 }' /proc/locks | while read -r pid; do
        for fd in "/proc/$pid/fd"/*; do   # another filesystem may have the same inode
            if [ "$(readlink "$fd")" = "$own/lock" ]; then say "$pid"; break; fi
        done
    done
}

look_lock() {
    if [ -n "$at_work" ]; then
        # no sign of life for so long: neither in the journal nor in what it shows of its progress
        if [ -z "$(find "$own/lock.owner" "$logs/update_progress.json" "$own"/journal/*.jsonl -mmin -30 2>/dev/null)" ]; then
            check warning lock "held by $at_work, without progress for 30 minutes" "$(command_line unlock_update.sh)"
        else
            check ok lock "held by $at_work"
        fi
        return
    fi
    held=$(oneline "$(unknown_holders)")
    if [ -n "$held" ]; then
        check warning lock "held by pid $held, which has not said what for" "see who that is (ps -fp ${held%% *}); then $(command_line unlock_update.sh)"
    elif [ -f "$own/lock.owner" ]; then
        check note lock "free; the owner on record is dead: $(field "$own/lock.owner" operation), pid $(field "$own/lock.owner" pid), since $(field "$own/lock.owner" since)"
    else
        check ok lock free
    fi
}

look_journal() {   # FILE
    journal_load "$1"
    sound=$(printf '%s' "$j_lines" | grep -c '') all=$(grep -c '' "$1")
    phase=$(journal_phase)
    what="deployment $j_id (${j_kind:-unknown} to ${j_target:-?}, from ${j_origin:-nothing})"
    if [ -n "$at_work" ]; then check ok deployment "$what is in phase ${phase:-begin}"; return; fi
    if journal_ended; then
        check warning deployment "$what has ended, and is not in the history, which could not be written" "see $logs/update_history.json; then updater recover, or without Python: $(command_line cleanup_failed_update.sh)"
        return
    fi
    if journal_failed; then
        check failed deployment "$what failed, and its way back has not come to its end" "updater recover, or without Python: $(command_line cleanup_failed_update.sh)"
    else
        check failed deployment "$what was interrupted in phase ${phase:-begin}, and nobody is at work on it" "updater recover, or without Python: $(command_line cleanup_failed_update.sh)"
    fi
    if [ $((all - sound)) -gt 1 ]; then
        check failed deployment "the journal of $j_id is damaged from line $((sound + 1)) of $all on: what happened after that is not known" "see the disk (dmesg); then updater recover, or $(command_line emergency_rollback.sh)"
    elif [ "$all" -gt "$sound" ]; then
        check note deployment "the last line of the journal of $j_id is torn, as a kill leaves it"
    fi
}

json_text() { sed -n "s/.*\"$2\": *\"\\([^\"]*\\)\".*/\\1/p" "$1" 2>/dev/null | head -n 1; }   # FILE KEY: a plain text in a JSON file

look_marks() {
    each look_journal "$(open_journals)"
    undo="updater recover, or without Python: $(command_line cleanup_failed_update.sh)"
    if [ -n "$(field "$own/emergency" to)" ] && [ -z "$at_work" ]; then
        check failed deployment "emergency_rollback.sh to $(field "$own/emergency" to) was killed, since $(field "$own/emergency" at)" "run it again: $(command_line emergency_rollback.sh)"
    fi
    if is_missing; then
        wrong data "$absent" "move each back (mv), or put a backup back: $(command_line restore_backup.sh)"
    elif [ -e "$own/swap.json" ]; then
        wrong data "data are being moved below shared/ ($(json_text "$own/swap.json" purpose) of $(json_text "$own/swap.json" id)), and nobody is at work on it" "$undo"
    elif [ -e "$own/swapped.json" ] && [ -z "$at_work" ]; then
        check warning data 'what a finished move of data has left is still there' "$undo"
    fi
    if [ -e "$own/hold" ] || [ -L "$own/hold" ]; then
        check note hold "updates are held by $(json_text "$own/hold" by) since $(json_text "$own/hold" at): $(json_text "$own/hold" reason) (updater release-hold lifts it)"
    fi
    if [ -e "$own/drained" ] && [ -z "$at_work" ]; then
        check warning drained 'the application was told to take on nothing new, and by whom that would be taken back is gone' "$undo; by hand: $(quoted "$own/resume")"
    fi
    if [ -e "$own/trial" ] && [ -z "$at_work" ]; then
        check warning trial 'the application runs as on trial, and no deployment is at work' "$undo"
    fi
}

look_leftovers() {
    [ -z "$at_work" ] || return 0
    number=0 first=
    for place in "$root" "$root/releases" "$root/scripts" "$own" "$own"/* "$own/journal/closed" "$own/cache/http" "$own"/launchers/* "$logs" "$root/shared/backups"; do
        for file in "$place"/.tmp-*-*[0-9a-f]; do
            if [ -e "$file" ] || [ -L "$file" ]; then number=$((number + 1)); [ -n "$first" ] || first=${file#"$root/"}; fi
        done
    done
    [ $number = 0 ] || check warning leftovers "$number temporary names left by a kill: $first$([ $number = 1 ] || printf ' …')" "$(command_line cleanup_failed_update.sh)"
    for place in "$root"/shared/.updater-kept-* "$root"/shared/*/.updater-kept-*; do
        if [ -d "$place" ]; then check note leftovers "${place#"$root/"} holds data that gave way to a restore, or that a failed release wrote; its PATHS tells what was where"; fi
    done
}

day_ago() {   # the moment 24 hours ago, as it stands at the beginning of a line of a log
    date -u -d "@$(($(clock) - 86400))" +%Y-%m-%dT%H:%M:%S 2>/dev/null || date -u -r $(($(clock) - 86400)) +%Y-%m-%dT%H:%M:%S 2>/dev/null
}

end_of() { tail -c 65536 "$1" 2>/dev/null | tr -d '\000'; }

look_logs() {
    for file in "$logs"/*.log; do
        if [ -e "$file" ] && [ ! -f "$file" ]; then check warning logs "${file#"$root/"} is no file, so nothing can be written to it" "mv $(quoted "$file") $(quoted "$file.aside")"; fi
    done
    if [ -f "$logs/errors.log" ] && since=$(day_ago); then
        recent=$(end_of "$logs/errors.log" | awk -v since="$since" '$1 >= since && /^[0-9]/')
        if [ -n "$recent" ]; then
            check note errors "$(printf '%s\n' "$recent" | grep -c '') in the last day; the last: $(printf '%s\n' "$recent" | tail -n 1 | cut -c1-300)"
        else
            check ok errors 'none in errors.log in the last day'
        fi
    fi
    for name in $names; do
        [ -f "$logs/$name.log" ] || continue
        last=$(end_of "$logs/$name.log" | awk '/^--- started / { n = 0; next } tolower($0) ~ /error|exception|critical|fatal|traceback/ { it = $0; n++ } END { if (n) print n " lines tell of errors since its start; the last: " substr(it, 1, 300) }')
        [ -z "$last" ] || check note errors "$name.log: $last"
    done
}

look_history() {
    file=$logs/update_history.json
    if [ ! -s "$file" ]; then check note history 'no deployment is on record'; return; fi
    # one record on each line; people may have laid it out anew, which is no damage
    odd=$(sed '/^[[:space:]]*[][]*[[:space:]]*$/d; /^[[:space:]]*\[\{0,1\}{.*}\]\{0,1\},\{0,1\}[[:space:]]*$/d' "$file" | grep -c '')
    last=$(grep '^[[:space:]]*\[\{0,1\}{.*"outcome"' "$file" | tail -n 1)
    if [ -z "$last" ] && [ "$odd" = 0 ]; then check note history 'no deployment is on record'; return; fi
    if [ -z "$last" ]; then
        check warning history "update_history.json cannot be read line by line ($odd lines)" 'updater history tells whether it is damaged; the next deployment puts a damaged one aside'
        return
    fi
    [ "$odd" = 0 ] || check warning history "$odd lines of update_history.json are damaged" 'nothing: the others are read, and the next deployment keeps the file aside as it is'
    of() { printf '%s\n' "$last" | sed -n "s/.*\"$1\": \"\\([^\"]*\\)\".*/\\1/p"; }
    check ok history "last: $(of kind) $(of from) to $(of to): $(of outcome), $(of ended)"
}

look_backup() {
    if ! backup=$(last_backup); then
        check warning backup 'there is none' 'updater backup create; each deployment makes one as well'
        return
    fi
    if [ ! -x "$root/shared/backups/$backup" ]; then check note backup "$backup: $me may not look into it"; return; fi
    lacking=$(missing_of "$backup")
    made=$(epoch "$backup")
    age=$(($(clock) - ${made:-0}))
    if [ -n "$lacking" ]; then
        check failed backup "$backup is not whole: $(oneline "$lacking") missing" 'updater backup create makes another; updater backup verify --all looks at all'
    elif [ "$age" -gt 604800 ]; then
        check note backup "$backup is $(lasted "$age") old; each deployment makes another"
    else
        check ok backup "$backup, $(lasted "$age") old, with its sums"
    fi
}

look_scripts() {
    broken=$(broken_scripts)
    remedy="updater init $(quoted "$root") puts them there; or copy them from the source of updater: scripts/*.sh"
    if [ -n "$broken" ]; then
        check warning scripts "$(printf '%s' "$broken" | tr '\n' ';' | sed 's/;/; /g')" "$remedy"
    elif edited=$(edited_scripts) && [ -n "$edited" ]; then
        check warning scripts "not as updater wrote them: $(oneline "$edited")" "$remedy (an edited one is kept beside)"
    else
        check ok scripts 'all emergency scripts are there'
    fi
}

look() {
    at_work=$(holder) || at_work=
    look_root
    look_links
    look_releases
    look_processes
    look_probes
    look_databases
    look_disks
    look_lock
    look_marks
    look_leftovers
    look_logs
    look_history
    look_backup
    look_scripts
}

verdict() {
    if [ $ill = 1 ]; then state='not healthy'; elif [ $failures -gt 0 ]; then state='in trouble'; else state=healthy; fi
    printf '%s is %s: %s failed, %s warnings, of %s checks' "${version:-the application}" "$state" "$failures" "$warnings" "$count"
}

summary() {
    say
    each show_remedy "$checks"
    if [ $ill = 1 ] || [ $failures -gt 0 ]; then say "$red$(verdict)$plain"; else say "$green$(verdict)$plain"; fi
}

# ---------------------------------------------------------------- the report

part() { printf '\n# >>> %s\n' "$*"; }

whole() { if [ -f "$1" ]; then head -c 1048576 "$1"; say; elif [ -e "$1" ]; then say 'is not a regular file'; else say 'is not there'; fi; }

last_lines() {   # FILE COUNT
    if [ -f "$1" ]; then tail -c 524288 "$1" | tail -n "$2"; elif [ -e "$1" ]; then say 'is not a regular file'; else say 'is not there'; fi
}

report_text() {
    red='' yellow='' green='' bold='' plain=''
    say "A diagnostic report by health_check_enhanced.sh of $root, made $(moment).

It holds what the checks say, the tools of this machine, updater.toml, journals, and the ends of logs. No database, no backup, none of the
application's settings. Secrets are blanked out as ***, and often the rest of a line: look through it before you give it to anybody."
    part 'checks'
    each show_check "$checks"
    summary
    part 'machine'
    uname -a
    uptime 2>/dev/null
    say "user $(myself), owner of the root $(owner_of "$root"), umask $(umask), shell $(ls -l "$(command -v sh)" 2>/dev/null | sed 's/^.* \([^ ]*sh\)/\1/')"
    part 'tools'
    for tool in tar gzip zstd sha256sum shasum flock perl setsid timeout curl wget nc sqlite3 awk sed find python3 uv updater git busybox; do
        if has "$tool"; then
            case $tool in perl) flag=-v ;; busybox) flag=--help ;; *) flag=--version ;; esac
            printf '%s: %s\n' "$(command -v "$tool")" "$(limited 5 "$tool" $flag </dev/null 2>&1 | sed '/^$/d' | head -n 1 | cut -c1-200)"
        else
            say "$tool: not here"
        fi
    done
    part 'filesystems'
    for place in "$root" "$root/releases" "$own" "$root/shared" "$root"/shared/*; do if [ -d "$place" ]; then limited 10 df -Pk "$place" | sed 1d; fi; done | sort -u
    for place in "$root" "$root/shared"; do limited 10 df -i "$place"; done 2>/dev/null | sort -u
    each mounted "$mounts"
    part 'names'
    for place in "$root" "$root/releases" "$own" "$own"/*/ "$root/shared" "$root/shared/backups" "$logs"; do
        case $place in */cache/ | */config/ | */good/ | */previous/) continue ;; esac
        if [ -d "$place" ]; then say "$place:"; ls -lan "$place" | head -n 200; fi
    done 2>&1
    part "toml updater.toml"
    whole "$root/updater.toml"
    for file in "$own"/configurations/*.toml; do if [ -f "$file" ]; then part "toml ${file#"$own/"}"; whole "$file"; fi; done
    for file in "$own"/journal/*.jsonl $(ls "$own/journal/closed" 2>/dev/null | sed -n 's/\.jsonl$//p' | sort | tail -n 3 | sed 's/$/.closed/'); do
        case $file in *.closed) file=$own/journal/closed/${file%.closed}.jsonl ;; esac
        if [ -f "$file" ]; then part "${file#"$own/"}"; whole "$file"; fi
    done
    part 'update_history.json, the last 10 records'
    last_lines "$logs/update_history.json" 11
    for file in update_progress.json update.log errors.log; do part "$file"; last_lines "$logs/$file" 100; done
    for file in "$logs"/*.log; do
        case ${file##*/} in update.log | errors.log) ;; *) part "${file##*/}"; last_lines "$file" 50 ;; esac
    done
    part 'end of the report'
}

write_report() {
    [ -n "$report" ] || return 0
    if [ "$report" = - ]; then report_text 2>&1 | redact; return; fi
    # a new file and never a link to another, readable for its owner only; if it is cut off, its last line is not there
    if (umask 077; set -C; report_text 2>&1 | redact >"$report") 2>/dev/null && tail -n 1 "$report" | grep -q '^# >>> end of the report'; then
        [ "$as_json" = 1 ] || say "The report is $report: look through it before you give it to anybody; no program knows all of your secrets."
        return
    fi
    fail 2 "$report could not be written whole (a full disk?)" 'Nothing else was changed.' 'name another place (--report FILE), or the standard output (--report -)'
}

[ "$as_json" = 1 ] || step "Health of $root"
look
if [ $ill = 1 ]; then code=4; elif [ $failures -gt 0 ]; then code=3; else code=0; fi
[ "$as_json" = 1 ] || summary
write_report
if [ "$as_json" = 1 ] && [ "$report" != - ]; then
    checks_json "\"verdict\": $(json "$(verdict)"), \"healthy\": $([ $code = 0 ] && printf true || printf false), \"exit_code\": $code, \"root\": $(json "$root"), \"in_service\": $(json "$version"), \"report\": $(json "$report")"
fi
exit $code
