# shellcheck shell=sh disable=SC2154,SC2034
# What the scripts share that look and change nothing. Sourced by them, after lib.sh.
#
# No temporary files and no here-documents: several shells write those to a disk, which may be full.

newline='
'
tab=$(printf '\t')
emergency_scripts='cleanup_failed_update emergency_rollback force_stop health_check_enhanced manual_update restore_backup test_update_system unlock_update'

# each FUNCTION TEXT: calls it with every line
each() {
    IFS=$newline
    set -f
    # shellcheck disable=SC2086
    set -- "$1" $2
    set +f
    IFS=" $tab$newline"
    while [ $# -gt 1 ]; do
        "$1" "$2"
        call_=$1
        shift 2
        set -- "$call_" "$@"
    done
}

printable() { printf '%s' "$*" | tr '\n\r\t' '   ' | tr -d '\000-\037\177'; }

# ---------------------------------------------------------------- moments

# epoch MOMENT: seconds since 1970 of a moment in UTC, from its first 14 digits; nothing if it is none
epoch() {
    printf '%s\n' "$1" | tr -cd '0-9\n' | awk 'length($0) >= 14 {
        y = substr($0, 1, 4); m = substr($0, 5, 2) + 0; d = substr($0, 7, 2)
        if (m <= 2) y--
        era = int(y / 400); year = y - era * 400
        days = era * 146097 + year * 365 + int(year / 4) - int(year / 100) + int((153 * (m + (m > 2 ? -3 : 9)) + 2) / 5) + d - 719469
        printf "%.0f", days * 86400 + substr($0, 9, 2) * 3600 + substr($0, 11, 2) * 60 + substr($0, 13, 2)
    }'
}

lasted() {   # lasted SECONDS: for people
    if [ "$1" -ge 172800 ]; then printf '%s days' $(($1 / 86400))
    elif [ "$1" -ge 7200 ]; then printf '%s hours' $(($1 / 3600))
    else printf '%s minutes' $(($1 / 60)); fi
}

# ---------------------------------------------------------------- checks

as_json=0 checks='' failures=0 warnings=0 scope='' count=0

# check RESULT NAME SUMMARY [REMEDY]: ok, note (nothing to do), warning or failed; shown at once, and kept for the verdict
check() {
    said_=$(printable "$3") remedy_=$(printable "${4-}")
    count=$((count + 1))
    case $1 in failed) failures=$((failures + 1)) ;; warning) warnings=$((warnings + 1)) ;; esac
    checks="$checks$1$tab$2$tab$scope$tab$said_$tab$remedy_$newline"
    [ "$as_json" = 1 ] || show_check "$1$tab$2$tab$scope$tab$said_$tab"
}

# parts LINE: of a kept check into $c_result, $c_name, $c_scope, $c_said, $c_remedy
parts() {
    c_result=${1%%"$tab"*} c_rest=${1#*"$tab"}
    c_name=${c_rest%%"$tab"*} c_rest=${c_rest#*"$tab"}
    c_scope=${c_rest%%"$tab"*} c_rest=${c_rest#*"$tab"}
    c_said=${c_rest%%"$tab"*} c_remedy=${c_rest#*"$tab"}
}

show_check() {
    parts "$1"
    case $c_result in
        ok) printf '  %sok%s      ' "$green" "$plain" ;;
        note) printf '  note    ' ;;
        warning) printf '  %swarning%s ' "$yellow" "$plain" ;;
        *) printf '  %sFAILED%s  ' "$red" "$plain" ;;
    esac
    printf '%-12s %s\n' "$c_name" "$c_said"
}

show_remedy() {   # what is wrong, and what to type
    parts "$1"
    case $c_result in
        warning) printf '%swarning%s %s: %s\n' "$yellow" "$plain" "$c_name" "$c_said" ;;
        failed) printf '%sFAILED%s  %s: %s\n' "$red" "$plain" "$c_name" "$c_said" ;;
        *) return 0 ;;
    esac
    [ -z "$c_remedy" ] || printf '        Next: %s\n' "$c_remedy"
}

json_check() {
    parts "$1"
    printf '%s\n    {"name": %s, "result": "%s", "summary": %s, "remedy": %s%s}' "$comma" "$(json "$c_name")" "$c_result" \
        "$(json "$c_said")" "$(json "$c_remedy")" "${c_scope:+, \"for\": \"$c_scope\"}"
    comma=,
}

# checks_json MEMBERS: one JSON document: these members, then the checks
checks_json() {
    comma=
    {
        printf '{%s, "checks": [' "$1"
        each json_check "$checks"
        printf '\n]}\n'
    } | if has iconv; then iconv -c -f UTF-8 -t UTF-8; else tr '\200-\377' '?'; fi   # names on the disk may be any bytes
}

# ---------------------------------------------------------------- what both look at

# room DIRECTORY: of its filesystem: $r_mount, $r_free and $r_total in KiB, $r_inodes (free; empty: they are made as needed, or
# nothing here tells)
room() {
    r_mount='' r_free='' r_total='' r_inodes=''
    # the device's name may hold spaces, so fields are counted from the last percentage
    told_=$(limited 10 df -Pk "$1" 2>/dev/null | awk 'NR > 1 { for (i = NF; i > 3; i--) if ($i ~ /^[0-9]+%$/) {
        total = $(i - 3); free = $(i - 1); sub(/^.*[0-9]+%[ \t]+/, ""); print free, total, $0; exit } }')
    [ -n "$told_" ] || return 1
    r_free=${told_%% *} told_=${told_#* }
    r_total=${told_%% *} r_mount=${told_#* }
    # with -P macOS leaves the inodes out; its own form has them before the last percentage as well
    told_=$(limited 10 df -Pi "$1" 2>/dev/null)
    case $told_ in *[Ii][Ff]ree* | *Inodes*) ;; *) told_=$(limited 10 df -i "$1" 2>/dev/null) ;; esac
    r_inodes=$(printf '%s\n' "$told_" | awk 'NR == 1 { known = /[Ii][Ff]ree|Inodes/ }
        known && NR > 1 { for (i = NF; i > 2; i--) if ($i ~ /^[0-9]+%$/) { if ($(i - 1) + $(i - 2) > 0) print $(i - 1); exit } }')
}

# mounted MOUNT: the line that says how it is mounted
mounted() {
    if [ -r /proc/self/mounts ]; then   # a space is \040 there
        MOUNT=$(printf '%s' "$1" | sed 's/\\/\\134/g; s/ /\\040/g') awk '$2 == ENVIRON["MOUNT"] { line = $0 } END { print line }' /proc/self/mounts
    else
        limited 10 mount 2>/dev/null | grep -F " on $1 " | tail -n 1
    fi
}

# is_read_only DIRECTORY: is its filesystem mounted so? for root some shells call everything writable
is_read_only() {
    room "$1" || return 1
    case $(mounted "$r_mount" | tr ' ()' ',,,') in *,ro,* | *,read-only,*) return 0 ;; esac
    return 1
}

megabytes() { printf '%s MB' $(($1 / 1000)); }   # of KiB, roughly

# toml_text FILE SECTION KEY: a plain string in updater.toml
toml_text() {
    awk -v section="[$2]" -v key="$3" '
        /^[ \t]*\[/ { line = $0; gsub(/[ \t]/, "", line); sub(/#.*/, "", line); here = (line == section) }
        here && (n = index($0, "=")) {
            name = substr($0, 1, n - 1); gsub(/[ \t]/, "", name)
            if (name == key && match(substr($0, n + 1), /"[^"]*"|\047[^\047]*\047/)) { print substr($0, n + 1 + RSTART, RLENGTH - 2); exit }
        }
    ' "$1" 2>/dev/null
}

# python_works RELEASE: 0 its Python starts, 1 it does not ($why), 2 it has no environment
python_works() {
    if [ ! -d "$root/releases/$1/.venv" ]; then return 2; fi
    if [ ! -x "$root/releases/$1/.venv/bin/python" ]; then why='.venv/bin/python is not there, or leads nowhere'; return 1; fi
    why=$(limited 20 "$root/releases/$1/.venv/bin/python" -I -B -c '' </dev/null 2>&1) && return 0
    why=".venv/bin/python does not start: $(printf '%s\n' "$why" | tail -n 1)"
    return 1
}

processes_configured() { has_table processes; }

# last_backup: the name of the latest; the names sort by their time
last_backup() {
    found_=
    for place in "$root"/shared/backups/backup_*; do
        if [ -d "$place" ] && [ ! -L "$place" ]; then found_=${place##*/}; fi
    done
    [ -n "$found_" ] && printf '%s' "$found_"
}

# missing_of BACKUP: what it should hold and does not
missing_of() {
    place=$root/shared/backups/$1
    for file in manifest.json SHA256SUMS; do [ -f "$place/$file" ] || say "$file"; done
    [ ! -f "$place/SHA256SUMS" ] || sed 's/^[0-9a-f]* [ *]//' "$place/SHA256SUMS" | while IFS= read -r file; do
        [ -f "$place/$file" ] || say "$file"
    done
}

# broken_scripts: those that are not there, cannot be read, or are cut off
broken_scripts() {
    for name in $emergency_scripts lib lib_backup lib_checks lib_journal lib_move lib_processes lib_redact lib_release lib_undo; do
        file=$root/scripts/$name.sh
        if [ ! -f "$file" ]; then say "$name.sh is not there"
        elif [ ! -r "$file" ]; then say "$name.sh cannot be read"
        elif ! sh -n "$file" 2>/dev/null; then say "$name.sh is damaged"; fi
    done
}

# edited_scripts: those that are not as updater wrote them: somebody's edit, or a mixture of two versions
edited_scripts() {
    [ -n "$sha_tool" ] && [ -s "$own/scripts.sums" ] || return 0
    # shellcheck disable=SC2086
    (cd -- "$root" && $sha_tool -c .updater/scripts.sums 2>/dev/null) | sed -n 's/: FAILED.*//p'
}

owner_of() { ls -ld "$1" 2>/dev/null | awk '{ print $3; exit }'; }
myself() { id -un 2>/dev/null || id -u; }
