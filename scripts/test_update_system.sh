#!/bin/sh
# Is this machine ready to update, and to recover when that goes wrong? Says for each thing that is missing what to install or to type.
case ${ZSH_VERSION:+${ZSH_NAME-}} in '' | sh) ;; *) exec /bin/sh "$0" "$@" ;; esac   # zsh by its own name: `path` and `status` are taken there
scripts=$(dirname -- "$0")
# shellcheck source=scripts/lib.sh
. "$scripts/lib.sh"
# shellcheck source=scripts/lib_checks.sh
. "$scripts/lib_checks.sh"
# shellcheck source=scripts/lib_backup.sh
. "$scripts/lib_backup.sh"

usage() {
    say "usage: sh $0 [options]

Looks whether this machine can update the application (tools, room, network) and can go back without Python (tools, rights, the lock,
a release to go back to, a backup that can be opened, the scripts). Takes the lock for a moment, and swaps a link in a temporary
directory in the root, which it removes; it changes nothing else.

  --dry-run   without these two: nothing is written
  --json      print both verdicts and every check as JSON
  --root DIR  the root; else the one that this script lies in
  --help      this text

Ends with 0: ready to update and to recover · 2 wrong usage · 3 not ready for one of them, or both"
}

while [ $# -gt 0 ]; do
    if common_option "$@"; then shift "$shifts"; continue; fi
    case $1 in
        --json) as_json=1 ;;
        *) usage_error "there is no option $1" ;;
    esac
    shift
done
find_root "$0"
backups=$root/shared/backups

# install DEBIAN [ALPINE [MACOS]]: what to type to have it
install() {
    if has apt-get; then printf 'apt-get install %s' "$1"
    elif has apk; then printf 'apk add %s' "${2:-$1}"
    elif has brew; then printf 'brew install %s' "${3:-${2:-$1}}"
    else printf 'install it (Debian: %s; Alpine: %s; macOS: %s)' "$1" "${2:-$1}" "${3:-${2:-$1}}"; fi
}

# ---------------------------------------------------------------- tools

look_tools() {
    scope=recover
    lacking=
    for tool in awk cat chmod cmp cp cut date dd df dirname find grep head id ls mkdir mv od rm rmdir sed sort tail tr ln; do
        has "$tool" || lacking="$lacking $tool"
    done
    if [ -n "$lacking" ]; then
        check failed tools "not here:$lacking" "$(install 'coreutils findutils grep sed gawk' busybox coreutils)"
    else
        check ok tools 'what the scripts are made of is here'
    fi
    if [ -n "$sha_tool" ]; then check ok tools "sums: $sha_tool"
    else check failed tools 'neither sha256sum nor shasum: nobody can tell whether a release, a backup or a journal is as it was' "$(install coreutils coreutils coreutils)"; fi
    if has flock; then check ok tools 'the lock: flock'
    elif has perl; then check ok tools 'the lock: perl'
    else check warning tools 'neither flock nor perl: the scripts cannot hold the lock, so start no other command beside them' "$(install util-linux flock perl)"; fi
    if has perl; then check ok tools 'a start apart from the terminal: perl'
    elif has setsid; then check ok tools 'a start apart from the terminal: setsid'
    else check warning tools 'neither setsid nor perl: what a script starts belongs to its terminal' "$(install util-linux util-linux perl)"; fi
    if has curl; then check ok tools 'HTTP: curl'
    elif has wget; then check warning tools 'HTTP: wget only; a probe that wants another status than 200, and manual_update.sh, need curl' "$(install curl)"
    else check warning tools 'neither curl nor wget: HTTP probes are not asked, and manual_update.sh cannot fetch' "$(install curl)"; fi
    if has nc || has perl; then check ok tools "TCP probes: $(has nc && printf nc || printf perl)"; else check note tools 'neither nc nor perl: TCP probes are not asked'; fi
    if has sqlite3; then check ok tools sqlite3; else check note tools "no sqlite3: health_check_enhanced.sh does not look into databases ($(install sqlite3 sqlite sqlite))"; fi
    find "$root/." -name . -mmin -1 >/dev/null 2>&1 ||
        check failed tools 'find does not know -mmin: file probes cannot be asked' "$(install findutils findutils findutils)"
    has timeout || has perl || check note tools 'neither timeout nor perl: a look that hangs is not ended'
    if ! has tar; then check failed tools 'no tar: neither a backup nor a release can be unpacked' "$(install tar)"; fi
    if has zstd; then check ok tools 'backups: tar and zstd'
    elif find_zstd; then check warning tools 'backups: tar, and bsdtar or a Python that reads zstandard' "$(install zstd): it goes where those may be gone"
    else check failed tools 'no zstd: no backup can be opened without Python' "$(install zstd)"; fi
    has gzip || check warning tools 'no gzip: manual_update.sh cannot unpack a release' "$(install gzip)"
    scope=update
    found=
    for tool in python3 python3.14 python3.13 python3.12 python3.11; do
        if has "$tool" && limited 10 "$tool" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then found=$tool; break; fi
    done
    if [ -n "$found" ]; then check ok python "$found"
    elif has uv; then check ok python 'none of 3.11 or newer on the PATH; uv brings one'
    else check warning python 'neither Python 3.11 or newer nor uv on the PATH: updater needs them, the scripts do not' "$(install python3 python3 python), or: https://docs.astral.sh/uv/"; fi
    if has updater; then check ok python "$(command -v updater)"; else check warning python 'updater is not on the PATH of this shell' 'call it by its path, or add its directory to PATH'; fi
}

# ---------------------------------------------------------------- rights

look_rights() {
    scope=both
    owner=$(owner_of "$root") me=$(myself)
    closed=
    for place in "$root" "$root/releases" "$root/shared" "$own" "$logs" "$root/shared/backups" "$own/run" "$own/journal" "$own/marks"; do
        if [ ! -d "$place" ]; then closed="$closed ${place#"$root/"} (not there)"; elif [ ! -w "$place" ] || is_read_only "$place"; then closed="$closed $place"; fi
    done
    if [ -n "$closed" ]; then
        check failed rights "$me cannot write:$closed" "as the owner: sudo -u $(quoted "$owner") …; a read-only disk: mount -o remount,rw; what is not there: updater init $(quoted "$root")"
    elif [ "$me" != "$owner" ]; then
        check warning rights "you are $me, and the root belongs to $owner: what you make is not theirs" "sudo -u $(quoted "$owner") $(command_line test_update_system.sh)"
    else
        check ok rights "$me owns the root and may write where it must"
    fi
    closed=
    for file in "$own"/run/*.pid; do
        one=$(recorded "$file") || continue
        kill -0 "${one%%:*}" 2>/dev/null || closed="$closed ${one%%:*}"
    done
    if [ -n "$closed" ]; then check failed rights "the processes$closed run as another user: $me cannot stop them" "run it as that user (ps -o user= -p${closed%% *}), or as root"
    else check ok rights 'what runs can be signalled'; fi
}

# ---------------------------------------------------------------- room

kilobytes() { limited 60 du -sk "$1" 2>/dev/null | awk '{ print $1; exit }'; }

look_room() {
    scope=update
    largest=0 inodes=0
    for place in "$root"/releases/*; do
        sealed "${place##*/}" || continue
        size=$(kilobytes "$place")
        [ "${size:-0}" -le "$largest" ] || largest=$size inodes=$(limited 60 find "$place" 2>/dev/null | grep -c '')
    done
    saved=0
    for place in "$backups"/backup_*; do
        [ -d "$place" ] || continue
        size=$(kilobytes "$place")
        [ "${size:-0}" -le "$saved" ] || saved=$size
    done
    room "$root/shared/backups" || { check warning room 'df does not tell how much room there is' "$(install coreutils)"; return; }
    theirs=$r_mount
    there=$((saved + 65536))
    room "$root/releases"
    needed=$((largest + 65536))
    [ "$theirs" != "$r_mount" ] || needed=$((needed + saved))
    fits "$r_mount" "$r_free" "$needed" "${r_inodes:-}" $((inodes + 1000))
    [ "$theirs" = "$r_mount" ] || { room "$root/shared/backups"; fits "$r_mount" "$r_free" "$there" "${r_inodes:-}" 1000; }
    scope=both
    room "$root" && at=$r_mount && room "$root/releases"
    [ "$at" = "$r_mount" ] || check warning room "releases/ lies on another filesystem ($r_mount) than the root ($at)" 'see that both are mounted when the application starts'
}

fits() {   # fits MOUNT FREE NEEDED INODES NEEDED: in KiB
    said="$1: $(megabytes "$2") free, $(megabytes "$3") needed by the largest release and backup so far${4:+; $4 inodes free, $5 needed}"
    if [ "$2" -lt "$3" ] || { [ -n "$4" ] && [ "$4" -lt "$5" ]; }; then
        check failed room "$said" "updater prune, updater backup prune, old logs; what a failed update left: $(command_line cleanup_failed_update.sh)"
    else
        check ok room "$said"
    fi
}

# ---------------------------------------------------------------- the swap and the lock

look_swap() {
    scope=both
    if [ "$dry_run" = 1 ]; then check note swap 'not tried (--dry-run)'; return; fi
    trial=$root/$(temporary swap)   # a kill leaves a name that updater's own tidying knows
    trap 'rm -rf "$trial"; exit 130' INT HUP TERM
    if mkdir -m 700 "$trial" 2>/dev/null && mkdir "$trial/one" "$trial/two" && ln -s one "$trial/link" && swap_link link two "$trial" 2>/dev/null &&
        [ "$(cd -- "$trial/link" && pwd -P)" = "$(cd -- "$trial/two" && pwd -P)" ] && [ ! -e "$trial/one/link" ]; then
        check ok swap 'a link is replaced in one step'
    else
        check failed swap "a link in $root cannot be replaced in one step" 'see whether the disk is full or read-only (df, mount, dmesg); some network filesystems have no symlinks'
    fi
    rm -rf "$trial"
    trap - INT HUP TERM
}

look_lock() {
    scope=both
    if who=$(holder); then
        check warning lock "held by $who" "wait for it; if it gets nowhere: $(command_line unlock_update.sh)"
        return
    fi
    if [ "$dry_run" = 1 ] || [ ! -f "$own/lock" ]; then check note lock 'not tried'; return; fi
    (try_lock) 2>/dev/null   # and freed with the subshell
    case $? in
        0) check ok lock 'it can be taken, and was freed again' ;;
        1) check warning lock 'another process holds it, and has not said what for' "$(command_line unlock_update.sh)" ;;
        2) check warning lock 'not tried: neither flock nor perl is here' "$(install util-linux flock perl)" ;;
        *) check failed lock "$own/lock cannot be opened" 'run it as the user that owns the root' ;;
    esac
    interrupted=$(interrupted_journals)
    [ -z "$interrupted" ] || check warning lock 'a deployment was interrupted; the next command finishes or undoes it' "updater recover, or $(command_line cleanup_failed_update.sh)"
    [ "$(open_journals)" = "$interrupted" ] || check warning lock 'a deployment has ended, and is not in the history, which could not be written' "see $logs/update_history.json; then updater recover, or $(command_line cleanup_failed_update.sh)"
}

# ---------------------------------------------------------------- the network

look_network() {
    scope=update
    type=$(toml_text "$root/updater.toml" source type)
    if [ "$type" = directory ]; then
        place=$(toml_text "$root/updater.toml" source path)
        case $place in /*) ;; *) place=$root/$place ;; esac
        if [ -d "$place" ]; then check ok source "$place is there"; else check failed source "$place, where releases come from, is not there" 'mount it, or correct [source] path in updater.toml'; fi
        return
    fi
    address=$(toml_text "$root/updater.toml" source api_url)
    address=${address:-https://api.github.com}
    # any answer will do: what the API says, updater preflight tells
    if has curl; then
        answered=$(curl -s -o /dev/null -m 10 -w '%{http_code}' "$address" 2>/dev/null) || answered=
        [ "$answered" != 000 ] || answered=
    elif has wget; then
        (wget -q -T 10 -O /dev/null "$address") >/dev/null 2>&1
        case $? in
            0 | 6 | 8) answered=yes ;;
            12[67] | 13? | 14? | 15?) check note source "$address was not asked: wget does not work here"; return ;;
            *) answered= ;;
        esac
    else
        check note source "$address was not asked: neither curl nor wget is here"
        return
    fi
    shown=$(printf '%s' "$address" | sed 's|://.*@|://***@|')
    if [ -n "$answered" ]; then check ok source "$shown answers"
    else check failed source "$shown does not answer" "see the network (proxy, DNS, firewall): curl -v $(quoted "$shown"); a way back needs none"; fi
}

# ---------------------------------------------------------------- a way back

look_release() {   # VERSION WHAT
    lacking=
    changed=$(verified "$1")
    case $? in
        0) ;;
        2) check warning "way back" "$1 ($2) was not compared with its sums: there are none, or no tool for them" 'see tools' ;;
        *) lacking="changed since it was installed: $(oneline "${changed:-its sums cannot be read}")" ;;
    esac
    python_works "$1"
    [ $? -ne 1 ] || lacking="${lacking:+$lacking; }$why"
    if [ -z "$(names_of "$1")" ] && processes_configured; then lacking="${lacking:+$lacking; }there are no launchers for it (.updater/launchers)"; fi
    if [ -n "$lacking" ]; then
        check failed "way back" "$1 ($2): $lacking" "updater fetch --rebuild $(quoted "$1"), updater start; or have another: $(command_line emergency_rollback.sh --dry-run)"
    else
        check ok "way back" "$1 ($2) is as published, its Python starts, its launchers are there"
    fi
}

look_way_back() {
    scope=recover
    version=$(in_service) || version=
    if [ -n "$version" ] && sealed "$version"; then
        look_release "$version" 'in service: where a failed update ends'
    elif [ -n "$version" ]; then
        check failed "way back" "$version is in service, and is not there or was not installed by updater" "$(command_line emergency_rollback.sh)"
    elif [ -e "$root/current" ] || [ -L "$root/current" ]; then
        check failed "way back" 'current leads to no release' "$(command_line health_check_enhanced.sh) tells more"
    else
        check note "way back" 'nothing is in service yet'
    fi
    if way=$(previous_good "$version"); then
        look_release "$way" 'the last good one before'
    elif [ -n "$version" ]; then
        check warning "way back" "no good release before $version is installed: from it there is no way back yet" 'keep one more ([releases] keep in updater.toml)'
    fi
}

# opens ARCHIVE: it unpacks to nothing with the tools here. The status of a pipe is that of its end only
opens() {
    told=$({ { zstd -dcq "$1" 2>/dev/null || say zstd >&3; } | { tar tf - >/dev/null 2>&1 || say tar >&3; } } 3>&1)
    [ -z "$told" ]
}

look_backup() {
    scope=recover
    if ! backup=$(last_backup); then
        if [ -n "$version" ]; then check failed backup 'there is none' 'updater backup create'; else check note backup 'there is none yet'; fi
        return
    fi
    place=$backups/$backup
    made=$(epoch "$backup")
    age=$(($(clock) - ${made:-0}))
    if [ "$age" -gt 604800 ]; then
        check warning backup "$backup, the last, is $(lasted "$age") old" 'updater backup create; each deployment makes one as well'
    else
        check ok backup "$backup is $(lasted "$age") old"
    fi
    lacking=$(missing_of "$backup")
    again='updater backup create makes another; the one before may be whole: updater backup verify --all'
    if [ -n "$lacking" ]; then check failed backup "$backup lacks $(oneline "$lacking")" "$again"; return; fi
    if [ -n "$sha_tool" ]; then
        # shellcheck disable=SC2086
        if told=$(cd -- "$place" && $sha_tool -c SHA256SUMS 2>&1); then check ok backup 'its sums match'
        else check failed backup "$backup is damaged: $(oneline "$(printf '%s\n' "$told" | sed -n 's/: FAILED.*//p' | head -n 5)")" "$again"; return; fi
    fi
    if ! find_zstd || ! has tar; then check failed backup "$backup cannot be opened here: zstd or tar is missing" "$(install 'tar zstd')"; return; fi
    number=0 bad=
    for file in "$place"/*.tar.zst; do
        [ -f "$file" ] || continue
        if opens "$file"; then number=$((number + 1)); else bad="$bad ${file##*/}"; fi
    done
    if [ -n "$bad" ]; then check failed backup "$backup cannot be unpacked with the tools here:$bad" "$(install 'tar zstd'); $again"
    else check ok backup "its $number archives unpack with the tools here"; fi
}

# ---------------------------------------------------------------- the rest

look_scripts() {
    scope=recover
    broken=$(broken_scripts)
    remedy="updater init $(quoted "$root") puts them there; or copy them all from the source of updater: scripts/*.sh"
    if [ -n "$broken" ]; then
        check failed scripts "$(printf '%s' "$broken" | tr '\n' ';' | sed 's/;/; /g')" "$remedy"
        return
    fi
    edited=$(edited_scripts)
    if [ -n "$edited" ]; then check warning scripts "not as updater wrote them: an edit, or a mixture of two versions: $(oneline "$edited")" "$remedy (an edited one is kept beside)"; return; fi
    check ok scripts 'all are there and whole'
}

look_unit() {
    scope=recover
    unit=$(toml_text "$root/updater.toml" app unit)
    [ -n "$unit" ] || return 0
    remedy="systemctl enable $(quoted "$unit"); or take [app] unit out of updater.toml"
    if has systemctl; then
        if limited 5 systemctl is-enabled "$unit" >/dev/null 2>&1 || limited 5 systemctl --user is-enabled "$unit" >/dev/null 2>&1; then
            check ok unit "$unit starts with the machine"
        else check warning unit "$unit would not start with the machine" "$remedy"; fi
    elif has launchctl; then
        if limited 5 launchctl print "system/$unit" >/dev/null 2>&1 || limited 5 launchctl print "gui/$(id -u)/$unit" >/dev/null 2>&1; then check ok unit "$unit is loaded"
        else check warning unit "$unit is not loaded" "launchctl bootstrap gui/$(id -u) ~/Library/LaunchAgents/$unit.plist"; fi
    elif has rc-update; then
        if limited 5 rc-update show 2>/dev/null | grep -q "^ *$unit "; then check ok unit "$unit starts with the machine"; else check warning unit "$unit would not start with the machine" "rc-update add $(quoted "$unit")"; fi
    else
        check warning unit "nobody here tells whether $unit starts with the machine: no systemctl, launchctl or rc-update" "$remedy"
    fi
}

look_clock() {
    scope=both
    now=$(clock)
    newest=$(for name in "$(last_backup)" "$(ls "$own/journal" "$own/journal/closed" 2>/dev/null | sed -n '/^[0-9]\{8\}T[0-9]\{6\}-/p' | sort | tail -n 1)"; do
        [ -z "$name" ] || epoch "$name"; say
    done | sort -n | tail -n 1)
    if [ "$now" -lt 1735689600 ]; then
        check failed clock "it is $(moment) by this machine, which cannot be" 'set the clock: timedatectl set-ntp true (Alpine: rc-service chronyd start; macOS: sntp -sS time.apple.com)'
    elif [ "${newest:-0}" -gt $((now + 300)) ]; then
        check warning clock "the newest record is $(lasted $((newest - now))) from the future: the clock is wrong now, or was then" 'set the clock: timedatectl set-ntp true (Alpine: rc-service chronyd start; macOS: sntp -sS time.apple.com)'
    else
        check ok clock "$(moment)"
    fi
}

[ "$as_json" = 1 ] || step "Is this machine ready? $root"
look_tools
look_rights
look_room
look_swap
look_lock
look_network
look_way_back
look_backup
look_scripts
look_unit
look_clock

# ready FOR: nothing failed that it needs
ready() { ! printf '%s' "$checks" | grep -Eq "^failed${tab}[^$tab]*$tab($1|both)$tab"; }
can_update=true can_recover=true
ready update || can_update=false
ready recover || can_recover=false
if [ $can_update$can_recover = truetrue ]; then code=0; else code=3; fi

if [ "$as_json" = 1 ]; then
    checks_json "\"update\": $can_update, \"recover\": $can_recover, \"exit_code\": $code, \"root\": $(json "$root")"
    exit $code
fi
say
each show_remedy "$checks"
told() { if [ "$2" = true ]; then say "$green$1$plain"; else say "${red}NOT $1$plain"; fi; }
told 'ready to update' $can_update
told 'ready to recover' $can_recover
exit $code
