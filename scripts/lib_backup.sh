# shellcheck shell=sh disable=SC2154,SC2034,SC2329,SC2115
# What lies in shared/backups, for a shell: which there are, whether they are whole, and what is in them. Sourced after lib.sh; the
# script sets $backups to that directory.

# ---------------------------------------------------------------- what can read zstandard

# find_zstd [ARCHIVE]: makes sure that `zstd -dcq FILE` and `zstd -tq FILE` work: by zstd, bsdtar, or a Python that can; fails if nothing can
find_zstd() {
    ! has zstd || return 0
    for archive in "${1-}" "$backups"/backup_*/state.tar.zst "$backups"/backup_*/*.tar.zst; do
        if [ -f "$archive" ]; then break; fi
    done
    for by_tar in bsdtar tar; do   # macOS and the BSDs have it as tar
        if has "$by_tar" && "$by_tar" --version 2>/dev/null | grep -q bsdtar && "$by_tar" -tf "$archive" >/dev/null 2>&1; then
            zstd() {
                case $1 in
                    -dcq) "$by_tar" --format=gnutar -cf - "@$2" ;;   # as a tar again: what follows wants nothing else
                    -tq) case $2 in *.tar.zst) "$by_tar" -tf "$2" >/dev/null ;; esac ;;   # it reads nothing but archives
                esac
            }
            return 0
        fi
    done
    for by_python in "$root"/releases/*/.venv/bin/python "$(sed -n '1s/^#!//p' "$(command -v updater 2>/dev/null || echo /dev/null)" 2>/dev/null)" "$(command -v python3)"; do
        if [ -x "$by_python" ] && zstd_by_python "$by_python" "$archive" >/dev/null 2>&1; then
            zstd() {
                case $1 in -dcq) zstd_by_python "$by_python" "$2" ;; -tq) zstd_by_python "$by_python" "$2" >/dev/null ;; esac
            }
            return 0
        fi
    done
    return 1
}

zstd_by_python() {
    "$1" -I -c '
import shutil, sys
try:
    from compression import zstd
    source = zstd.open(sys.argv[1])
except ImportError:
    import zstandard
    source = zstandard.ZstdDecompressor().stream_reader(open(sys.argv[1], "rb"), read_across_frames=True)
shutil.copyfileobj(source, sys.stdout.buffer, 1 << 20)
' "$2"
}

need_zstd() {
    find_zstd || fail 3 'nothing here can read zstandard, in which backups are compressed' 'Nothing was changed.' \
        'one of: apt-get install zstd (or dnf, apk add, brew install zstd); bsdtar (libarchive-tools); a Python with the module zstandard, or Python 3.14; then run this again'
}

# ---------------------------------------------------------------- which there are

# said BACKUP KEY: a text of its manifest, as JSON has it; said BACKUP KEY OBJECT: of an object in it
said() {
    if [ $# -eq 2 ]; then
        sed -n "s/^ \"$2\": \"\{0,1\}\(.*[^\",]\)\"\{0,1\},\{0,1\}\$/\1/p" "$backups/$1/manifest.json" 2>/dev/null | head -n 1
    else
        sed -n "/^ \"$3\": {/,/^ }/s/^  \"$2\": \"\(.*\)\",\{0,1\}\$/\1/p" "$backups/$1/manifest.json" 2>/dev/null | head -n 1
    fi
}

is_backup_name() { case $1 in backup_[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]_[0-9][0-9][0-9][0-9][0-9][0-9]) [ -d "$backups/$1" ] && [ ! -L "$backups/$1" ] ;; *) return 1 ;; esac; }
is_readable() { [ "$(said "$1" id)" = "$1" ] && [ "$(said "$1" format)" = 1 ]; }
has_part() { sed -n '/^ "parts": {/,/^ }/p' "$backups/$1/manifest.json" | grep -q "^  \"$2\": {"; }

# all_backups: their names, the oldest first, by their place in the order; those that cannot be read by their names
all_backups() {
    for place in "$backups"/backup_*; do
        name=${place##*/}
        is_backup_name "$name" || continue
        if is_readable "$name"; then printf '%010d %s\n' "$(said "$name" seq)" "$name"; else printf '%010d %s\n' 0 "$name"; fi
    done | sort | cut -d' ' -f2
}

# newest_backup: never an older one in the place of one that cannot be read: then it says so, and fails
newest_backup() {
    newest=
    for name in $(all_backups); do
        if is_readable "$name"; then newest=$name; fi
    done
    for name in $(all_backups); do
        if ! is_readable "$name" && [ "$(printf '%s\n%s\n' "$name" "$newest" | sort | tail -n 1)" = "$name" ]; then
            problem "$name is newer than $newest and cannot be read"
            return 1
        fi
    done
    [ -n "$newest" ] && printf '%s' "$newest"
}

# looks_whole BACKUP: is everything there that it lists? A quick look; check_backup reads it all
looks_whole() {
    is_readable "$1" && [ -s "$backups/$1/SHA256SUMS" ] || return 1
    while read -r sum file; do
        case $file in */* | .*) return 1 ;; *.blocks) [ -f "$backups/$1/$file" ] ;; *) [ -s "$backups/$1/$file" ] ;; esac || return 1
    done <"$backups/$1/SHA256SUMS"
}

list_backups() {
    printf '  %-24s %-21s %-20s %10s  %s\n' BACKUP WHEN RELEASE SIZE STATE
    all_backups | while read -r name; do
        state=whole
        looks_whole "$name" || state="${red}damaged$plain"
        when=$(said "$name" created) label=$(said "$name" label)
        kib=$(du -sk "$backups/$name" 2>/dev/null | cut -f1)
        release=$(said "$name" version release)
        printf '  %-24s %-21s %-20s %10s  %s\n' "$name" "$(printf '%.19s' "${when:-?}" | tr T ' ')" "${release:--}" "$(human "${kib:-0}")" "$state${label:+, $label}"
    done
}

human() {   # KIB
    if [ "$1" -ge 10240 ]; then printf '%s MiB' $(($1 / 1024)); else printf '%s KiB' "$1"; fi
}

# ---------------------------------------------------------------- whether one is whole

# check_backup BACKUP: every sum, and every archive; what is wrong is told
check_backup() {
    wrong=0
    is_readable "$1" || { problem "$1 has no manifest.json that can be read"; return 1; }
    if ! told=$(cd -- "$backups/$1" && $sha_tool -c SHA256SUMS 2>&1); then
        printf '%s\n' "$told" | sed -n 's/: FAILED.*//p' | while read -r name; do problem "$1/$name is damaged, or not there"; done
        wrong=1
    fi
    for archive in "$backups/$1"/*.zst; do
        [ -f "$archive" ] || continue
        name=${archive##*/}
        grep -q "^[0-9a-f]*  $name\$" "$backups/$1/SHA256SUMS" || { problem "$1/$name is not among its sums"; wrong=1; }
        zstd -tq "$archive" 2>/dev/null || { problem "$1/$name cannot be unpacked"; wrong=1; }
    done
    for part in config data logs dumps state; do
        if has_part "$1" $part && [ ! -f "$backups/$1/$part.tar.zst" ]; then problem "$1/$part.tar.zst is missing"; wrong=1; fi
    done
    return $wrong
}

# databases_of BACKUP: those that were sound when it was made, by their paths; what JSON had to escape is left out
databases_of() {
    awk '/^   "path": "/ { path = $0; sub(/^   "path": "/, "", path); sub(/",?$/, "", path) }
         /^   "integrity": "ok"/ { if (path !~ /\\/) print path }' "$backups/$1/manifest.json"
}

dumps_of() { sed -n '/^ "dumps": \[/,/^ \]/s/^   "name": "\(.*\)",\{0,1\}$/\1/p' "$backups/$1/manifest.json"; }

# ---------------------------------------------------------------- what is in one: in its directory, as docs/format.md has it

unpack() {   # unpack PART DIR: a part (config, data, logs, dumps) into a directory
    zstd -dcq "$1.tar.zst" | tar xpf - -C "$2" || return 1
    [ -f "$1.delta.tar.zst" ] || return 0
    zstd -dcq "$1.delta.tar.zst" | tar xpf - -C "$2" .updater-delta 2>/dev/null || :
    for gone in "$2"/.updater-delta/removed/*; do
        [ -f "$gone" ] || continue
        path=$(cat "$gone"; printf x)
        path=${path%x}
        if [ -e "$2/$path" ] || [ -L "$2/$path" ]; then within "$2" "$path" || return 1; fi
        rm -rf "$2/$path"
    done
    zstd -dcq "$1.delta.tar.zst" | tar xpf - -C "$2" || return 1
    for change in "$2"/.updater-delta/blocks/*; do
        [ -d "$change" ] || continue
        path=$(cat "$change/path"; printf x)
        file=$2/${path%x}
        within "$2" "${path%x}" && [ ! -L "$file" ] || return 1
        locked=
        [ -w "$file" ] || { locked=1; chmod u+w "$file" || return 1; }
        at=0
        while read -r first count; do
            dd if="$change/data" of="$file" bs=4096 skip="$at" seek="$first" count="$count" conv=notrunc 2>/dev/null ||
                { echo "cannot write to $file" >&2; return 1; }
            at=$((at + count))
        done <"$change/ranges"
        dd if=/dev/null of="$file" bs=1 seek="$(cat "$change/size")" count=0 2>/dev/null ||
            { echo "cannot write to $file" >&2; return 1; }
        touch -r "$change/data" "$file"
        [ -z "$locked" ] || chmod u-w "$file"
    done
    rm -rf "$2/.updater-delta"
}

within() {   # within DIR PATH: does it stay in the directory, and go by no link out of it?
    top=$(cd -- "$1" && pwd -P) && above=$(cd -- "$(dirname -- "$1/$2")" && pwd -P) || return 1
    case /$2/ in //* | */../*) ;; *) case $above/ in "$top"/*) return 0 ;; esac ;; esac
    echo "a path that leads out of the backup: $2" >&2
    return 1
}
