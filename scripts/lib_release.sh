# shellcheck shell=sh disable=SC2154,SC2034
# How an artifact becomes a release, for a shell: found, fetched, proved, unpacked, built, sealed as docs/format.md has it. Sourced by
# manual_update.sh after lib.sh; its functions fill in what its phases tell.

look_running() {   # sets $names, the processes that run, and $lost, those of them that nothing tells how to start again
    names='' lost=''
    for one in $(living | awk '!seen[$2]++ { print $2 ":" $3 }'); do
        if [ -f "$own/launchers/${one#*:}/${one%%:*}" ]; then names="$names ${one%%:*}"; else lost="$lost ${one%%:*}"; fi
    done
    names=${names# }
}

refuse_lost() {   # what would be stopped and could not be started, neither anew nor again, stays in service
    [ -z "$lost" ] || fail 3 "nothing tells a shell how to start${lost} again: its launcher (.updater/launchers) is gone, so it is not stopped" 'Nothing was changed.' \
        "updater restart writes launchers; or install it only, and put it into service yourself: $(command_line manual_update.sh "$(quoted "$wanted")" --install-only)"
}

is_tag() {
    case $1 in '' | [!A-Za-z0-9]* | *[!A-Za-z0-9._+@/-]* | *.good | *.bad | *.pinned) return 1 ;; esac
    case /$1/ in *//* | */./* | */../*) return 1 ;; esac
    [ ${#1} -le 100 ]
}

# ---------------------------------------------------------------- where releases come from

# json_flat: JSON on standard input as lines ".key.0.key<tab>value", texts in their quotes
json_flat() {
    grep -oE '"([^"\\]|\\.)*"|[][{},:]|[^][{},:"[:space:]]+' | awk '
        $0 == "{" || $0 == "[" { depth++; kind[depth] = $0; count[depth] = 0; key[depth] = ""; named[depth] = ($0 == "{"); next }
        $0 == "}" || $0 == "]" { depth--; next }
        $0 == "," { count[depth]++; named[depth] = (kind[depth] == "{"); next }
        $0 == ":" { named[depth] = 0; next }
        named[depth] { key[depth] = substr($0, 2, length($0) - 2); next }
        { name = ""; for (i = 1; i <= depth; i++) name = name "." (kind[i] == "{" ? key[i] : count[i]); print name "\t" $0 }'
}

# value NAME: of what json_flat has told in $flat; a text without its quotes
value() { printf '%s\n' "$flat" | awk -F '\t' -v name="$1" '$1 == name { text = $2; gsub(/^"|"$/, "", text); gsub(/\\\//, "/", text); print text; exit }'; }

# api ADDRESS FILE [TYPE]: what GitHub answers becomes the file. Fails with 4 if there is no such thing
api() {
    case $1 in http://* | https://*) ;; *) problem "not an address of the web: $(oneline "$1")"; return 1 ;; esac   # it may come from an answer
    answer=$2
    # by a file of options on its standard input: nobody sees the token in the list of processes
    status=$({ [ -z "$token" ] || printf 'header = "Authorization: Bearer %s"\n' "$token"; } |
        curl -sS -g -L --connect-timeout 20 --speed-limit 1 --speed-time 60 --retry 2 -K - -H "Accept: ${3:-application/vnd.github+json}" -o "$answer" -w '%{http_code}' \
            --url "$1" 2>"$work/said") || {
        problem "$1 cannot be read: $(oneline "$(cat "$work/said")")"
        return 1
    }
    case $status in
        200) ;;
        404) return 4 ;;
        401 | 403 | 429) problem "GitHub refuses ($status): $(oneline "$(sed -n 's/.*"message": *"\([^"]*\)".*/\1/p' "$answer")")"; return 1 ;;
        *) problem "$1 answers $status"; return 1 ;;
    esac
}

setting() {   # setting KEY OTHERWISE: of [source]
    found=$(toml "$config" source "$1")
    case $? in
        2) fail 3 "a shell cannot read [source] $1 in updater.toml" 'Nothing was changed.' 'write it as a plain text in quotes, or name a FILE' ;;
        1) printf '%s' "$2" ;;
        *) printf '%s' "$found" ;;
    esac
}

# resolve: sets $tag, $origin (file, asset, source), $origin_text, and what is known of the artifact
resolve() {
    work=$(mktemp -d "${TMPDIR:-/tmp}/updater.XXXXXX") || fail 3 'no temporary directory can be made' 'Nothing was changed.' 'set TMPDIR to a directory with room'
    trap 'rm -rf "$work"; release_lock' EXIT
    published_digest='' published_tree='' commit='' source_text='' notes='' published_at=''
    if [ -n "$artifact_file" ]; then
        resolve_file
    else
        type=$(setting type '') || exit
        folder=$(setting path '') || exit
        [ -n "$type" ] || { [ -n "$folder" ] && type=directory || type=github; }
        case $type in
            directory) resolve_directory ;;
            github) resolve_github ;;
            *) fail 3 "updater.toml has a source of a kind that a shell does not know: ${type:-none}" 'Nothing was changed.' 'name a FILE' ;;
        esac
    fi
}

# tag_of NAME: the tag in the name of a file
tag_of() {
    stem=${1%.tar.gz} stem=${stem%.tgz} stem=${stem%.tar.zst}
    case $stem in
        v[0-9]* | V[0-9]* | [0-9]*) printf '%s' "$stem" ;;
        *[-_]v[0-9]* | *[-_][0-9]*) printf '%s' "$stem" | sed 's/^[^0-9]*[-_]\(v\{0,1\}[0-9]\)/\1/' ;;
        *) printf '%s' "$stem" ;;
    esac
}

version_in() {   # the file VERSION of an archive
    # a name that begins with - would be an option of tar, and some of those run commands
    inside=$(archive "$1" | tar tf - 2>/dev/null | grep -E '^(\./)?([^/-][^/]*/)?VERSION$' | head -n 1)
    [ -z "$inside" ] || archive "$1" | tar xOf - "$inside" 2>/dev/null | head -c 200 | head -n 1 | tr -d '\r\n'
}

resolve_file() {
    case $artifact_file in *.tar.zst) find_zstd "$artifact_file" || fail 3 'nothing here can read zstandard' 'Nothing was changed.' 'install zstd, or bsdtar' ;; esac
    origin=file origin_text=$artifact_file source_text=$(dirname -- "$artifact_file") artifact_name=${artifact_file##*/}
    [ -z "$tag" ] || return 0
    named=$(tag_of "$artifact_name") said=$(version_in "$artifact_file")
    tag=$named
    if [ -n "$said" ] && [ "${said#v}" != "${named#v}" ]; then tag=$said; fi
    case $from-$tag in v[0-9]*-[0-9]*) tag=v$tag ;; esac   # GitHub leaves it out in the name of a file, and Git does not in the tag
}

resolve_directory() {
    case $folder in /*) ;; *) folder=$root/$folder ;; esac
    [ -d "$folder" ] || fail 8 "the folder of releases is not there: $folder" 'Nothing was changed.' 'see [source] path in updater.toml, or name a FILE'
    for artifact_file in "$folder"/*; do
        name=${artifact_file##*/}
        case $name in *.tar.gz | *.tgz | *.tar.zst) ;; *) continue ;; esac
        said=$(tag_of "$name")
        known="${known-} $said"
        if [ -n "$wanted" ] && [ "${said#v}" = "${wanted#v}" ]; then
            tag=$said
            resolve_file
            source_text=$folder
            return 0
        fi
    done
    [ -n "$wanted" ] || fail 2 'which release? a shell does not know which of them is the newest' 'Nothing was changed.' "name one of:${known-}"
    fail 8 "$folder has no release $wanted" 'Nothing was changed.' "it has:${known- none}"
}

resolve_github() {
    has curl || fail 3 'curl is not here, so nothing can be fetched from GitHub' 'Nothing was changed.' 'install curl, or fetch the file elsewhere and name it: manual_update.sh FILE'
    repository=$(setting repository '') || exit
    api_url=$(setting api_url https://api.github.com) || exit
    channel=$(setting channel stable) || exit
    asset=$(setting asset '') || exit
    checksums=$(setting checksums '') || exit
    token_env=$(setting token_env GITHUB_TOKEN) || exit
    case $repository in */*) ;; *) fail 3 'updater.toml names no repository ([source] repository)' 'Nothing was changed.' 'name a FILE' ;; esac
    case $token_env in [!A-Za-z_]* | *[!A-Za-z0-9_]*) fail 3 "[source] token_env is no name of a variable: $token_env" 'Nothing was changed.' ;; esac
    eval "token=\${$token_env-}"
    case $token in *[!A-Za-z0-9_.=-]*) fail 3 "what $token_env holds is no token" 'Nothing was changed.' ;; esac
    unset "$token_env"   # what is built is not told
    base=${api_url%/}/repos/$repository
    if [ -z "$wanted" ]; then wanted=$(latest_tag) || exit; fi
    is_tag "$wanted" || fail 2 "$wanted cannot be the name of a release" 'Nothing was changed.'
    tag=$wanted
    coded=$(printf '%s' "$tag" | sed 's/%/%25/g; s|/|%2F|g; s/+/%2B/g; s/@/%40/g')
    source_text=$(printf '%s' "$api_url" | sed 's|^https*://\(api\.\)\{0,1\}||; s|/api/v3$||')/$repository origin_text=$source_text
    if [ -n "$asset" ]; then
        api "$base/releases/tags/$coded" "$work/release" || no_release
        flat=$(json_flat <"$work/release")
        origin=asset
        published_at=$(value .published_at)
        one_asset "$asset"
        artifact_name=$asset_name artifact_url=$asset_url
        published_digest=$(value ".assets.$asset_number.digest")
        [ "$published_digest" != null ] || published_digest=
    else
        api "$base/commits/tags%2F$coded" "$work/commit" || no_release
        flat=$(json_flat <"$work/commit")
        origin=source artifact_name=$tag.tar.gz
        commit=$(value .sha) published_tree=$(value .commit.tree.sha)
        case $commit$published_tree in *[!0-9a-f]* | '') fail 8 'GitHub answered with something else than a commit' 'Nothing was changed.' ;; esac
        artifact_url=$base/tarball/$commit
    fi
}

no_release() { fail 8 "$source_text has no release $tag, or cannot be asked" 'Nothing was changed.' 'see the name (updater check), the network, and for a private repository the token; or fetch the file elsewhere and name it'; }

latest_tag() {   # the newest release of the channel: by its version, and if no tag is one the first that GitHub names
    api "$base/releases?per_page=100" "$work/releases" || fail 8 "the releases of $repository cannot be listed" 'Nothing was changed.' 'see the network, or name a FILE'
    newest=$(json_flat <"$work/releases" | awk -F '\t' -v channel="$channel" '
        function is_early(tag) { return tolower(tag) ~ /(^|[^a-z])(rc|alpha|beta|a|b|c|dev|devel|pre|preview|prerelease|canary|edge|next|nightly|daily|snapshot|unstable|experimental|draft|milestone|insiders|wip)([^a-z]|$)/ }
        function key(tag,   at, out, part, n) {   # its numbers, each of a fixed width; a prerelease comes before, what follows a release after it
            if (!match(tag, /(^|[-_\/@])[vV]?[0-9]+(\.[0-9]+)*/)) return ""
            at = RSTART + RLENGTH; out = substr(tag, RSTART, RLENGTH)
            gsub(/[^0-9.]/, "", out)
            n = split(out, part, "."); out = ""
            for (i = 1; i <= 6; i++) out = out sprintf("%012.0f", i <= n ? part[i] : 0)
            tag = substr(tag, at)
            out = out (is_early(tag) ? "0" : "1") tolower(tag)
            return out
        }
        { split($1, at, "."); text = $2; gsub(/^"|"$/, "", text); gsub(/\\\//, "/", text); number = at[2] + 0
          if ($1 ~ /^\.[0-9]+\.tag_name$/) { tag[number] = text; if (number >= count) count = number + 1 }
          if ($1 ~ /^\.[0-9]+\.draft$/) draft[number] = text
          if ($1 ~ /^\.[0-9]+\.prerelease$/) early[number] = text }
        END {
            for (n = 0; n < count; n++) {
                if (tag[n] == "" || draft[n] == "true" || (channel != "prerelease" && (early[n] == "true" || is_early(tag[n])))) continue
                if (first == "") first = tag[n]
                if ((its = key(tag[n])) > highest) { highest = its; best = tag[n] }
            }
            print (best != "" ? best : first)
        }')
    [ -n "$newest" ] || fail 8 "$repository has no release in the channel $channel" 'Nothing was changed.' 'name its TAG'
    printf '%s' "$newest"
}

# one_asset PATTERN: sets $asset_number, $asset_name and $asset_url; of the release in $flat
one_asset() {
    number=0 fitting=0
    while name=$(value ".assets.$number.name") && [ -n "$name" ]; do
        # shellcheck disable=SC2254
        case $name in $1) fitting=$((fitting + 1)) asset_number=$number asset_name=$name asset_url=$(value ".assets.$number.url") ;; esac
        number=$((number + 1))
    done
    [ $fitting = 1 ] || fail 8 "release $tag has $fitting assets that fit $1" 'Nothing was changed.' 'see [source] in updater.toml'
}

# same_release: is what is installed under this name what is to be installed? 2: only its content can tell
same_release() {
    sealed_as=$root/releases/$coming/.release/release.json
    sum=$(printf '%s' "${published_digest#sha256:}" | tr A-F a-f)
    [ -z "$artifact_file" ] || sum=$(sha256 <"$artifact_file")
    if [ -n "$sum" ] && grep -qF "\"sha256\": \"$sum\"" "$sealed_as"; then return 0; fi
    [ -z "$published_digest" ] || return 1
    [ -n "$commit" ] || return 2
    grep -q "\"commit\": *\"$commit\"\|\"tree\": *\"$published_tree\"" "$sealed_as"
}

# ---------------------------------------------------------------- fetched, and proved

archive() {   # the tar in an archive
    case $1 in *.tar.zst) zstd -dcq "$1" ;; *) gzip -dc "$1" ;; esac
}

fetch() {
    if [ -n "$artifact_file" ]; then
        artifact=$artifact_file
    else
        artifact=$unpacked/artifact.tar.gz
        case $artifact_name in *.tar.zst) artifact=$unpacked/artifact.tar.zst ;; esac
        api "$artifact_url" "$artifact" application/octet-stream || go_back 8 "$artifact_name could not be fetched" 'see the network; or fetch it elsewhere and name the file'
    fi
    case $artifact in *.tar.zst) find_zstd "$artifact" || go_back 3 'nothing here can read zstandard' 'install zstd, or bsdtar' ;; esac
    artifact_sha=$(sha256 <"$artifact") artifact_size=$(wc -c <"$artifact" | tr -d ' ')
}

# listed FILE NAME: the sum of NAME in a file of sums
listed() {
    awk -v name="$2" '
        { sub(/\r$/, "") }
        /^\\?[0-9a-fA-F]+ [ *]/ { sum = $1; sub(/^\\/, "", sum); file = $0; sub(/^[^ ]* [ *]/, "", file); sub(/.*\//, "", file); if (file == name) print tolower(sum); next }
        /^SHA256 ?\(/ { file = $0; sub(/^SHA256 ?\(/, "", file); sub(/\).*/, "", file); sub(/.*\//, "", file); if (file == name) print tolower($NF); next }
        NF == 1 && length($1) == 64 { print tolower($1) }
    ' "$1" | sort -u
}

# held_against WHAT SUM: fails closed
held_against() {
    case $2 in *[!0-9a-f]*) right=0 ;; *) [ ${#2} -eq 64 ] && right=1 || right=0 ;; esac
    [ "$right" = 1 ] || go_back 7 "$1 holds no SHA-256 of $artifact_name" 'ask the publisher'
    [ "$2" = "$artifact_sha" ] || {
        detail "published: $2"
        detail "received:  $artifact_sha"
        go_back 7 "what was received differs from $1" 'try again; if it stays so, the file was tampered with or published wrongly: ask the publisher'
    }
}

prove() {
    proof=
    if [ "$origin" = asset ]; then
        if [ -n "$published_digest" ]; then
            held_against 'the digest that GitHub gives' "$(printf '%s' "${published_digest#sha256:}" | tr A-F a-f)"
            proof='digest as published'
        fi
        if [ -n "$checksums" ]; then
            flat=$(json_flat <"$work/release")
            one_asset "$checksums"
            api "$asset_url" "$work/sums" application/octet-stream || go_back 8 "$asset_name could not be fetched"
            held_against "$asset_name" "$(listed "$work/sums" "$artifact_name")"
            proof="${proof:+$proof; }listed in the published checksums"
        fi
    elif [ "$origin" = file ]; then
        for sums in "$artifact_file.sha256" "$(dirname -- "$artifact_file")/SHA256SUMS" "$(dirname -- "$artifact_file")/sha256sums.txt"; do
            exists "$sums" || continue
            held_against "${sums##*/}" "$(listed "$sums" "$artifact_name")"
            proof='listed in the published checksums'
            break
        done
    else
        return 0   # the tree of the commit proves it, once it is unpacked
    fi
    if [ -n "$proof" ]; then good "$proof"; else unproved 'no sum lies beside the file'; fi
}

unproved() {   # nothing to compare with: told, and asked
    proof="unproven: $1"
    warn "nothing proves that $artifact_name is what was published: $1"
    detail "its SHA-256: $artifact_sha"
    [ "$yes" = 0 ] || return 0
    [ -t 0 ] || go_back 2 'Nobody can say whether that is right: the standard input is not a terminal' 'compare the sum, and run it again with --yes'
    printf '%sInstall it all the same?%s [y/N] ' "$bold" "$plain"
    read -r answer || answer=
    case $answer in y | Y | yes | Yes | YES) ;; *) go_back 130 cancelled ;; esac
}

# ---------------------------------------------------------------- unpacked

# check_names: lines "kind<tab>name<tab>target" on standard input: what a release may not hold is told, and it fails
check_names() {
    awk -F '\t' '
        function refuse(why) { print why; bad = 1; exit 1 }
        function follow(name, target,   place, ahead, n, m, i, part, at, steps, more) {   # does a link stay inside, whatever way it takes?
            n = split(name, place, "/") - 1
            m = 0
            for (i = split(target, more, "/"); i > 0; i--) ahead[++m] = more[i]
            for (steps = 0; m > 0; steps++) {
                if (steps > 4096) refuse("a symlink that goes in circles: " name)
                part = ahead[m--]
                if (part == "" || part == ".") continue
                if (part == "..") { if (!n) refuse("a symlink that leads out of the release: " name " -> " target); n--; continue }
                place[++n] = part
                at = place[1]
                for (i = 2; i <= n; i++) at = at "/" place[i]
                if (tolower(at) in links) {
                    n--
                    for (i = split(links[tolower(at)], more, "/"); i > 0; i--) ahead[++m] = more[i]
                }
            }
        }
        {
            kind = $1; name = $2
            if (kind !~ /^[-dlh]$/) refuse("something that no release holds (" kind "): " name)
            if (name ~ /^\//) refuse("an absolute name: " name)
            while (sub(/^\.\//, "", name) || sub(/\/\.\//, "/", name) || sub(/\/\/+/, "/", name) || sub(/\/$/, "", name)) ;
            if (name == "" || name == ".") next
            if ("/" name "/" ~ /\/\.\.\//) refuse("a name with ..: " name)
            if (length(name) > 1024 || split(name, parts, "/") > 64) refuse("too long, or too deep: " substr(name, 1, 80))
            if ((name in seen) && !(seen[name] == "d" && kind == "d")) refuse("the same name twice: " name)
            if ((tolower(name) in lower) && lower[tolower(name)] != name) refuse("names that differ only in case: " name)
            seen[name] = kind; lower[tolower(name)] = name
            if (kind == "h") {
                target = $3; while (sub(/^\.\//, "", target)) ;
                if (seen[target] != "-" && seen[target] != "h") refuse("a hard link to what is no file before it: " name " -> " target)
            }
            if (kind == "l") { if ($3 == "" || $3 ~ /^\//) refuse("a symlink with an absolute target, or none: " name); targets[name] = $3 }
            if (++entries > 250000) refuse("more than 250000 entries")
        }
        END {
            if (bad) exit 1
            tops = 0
            for (name in seen) { first = name; sub(/\/.*/, "", first); if (!(first in top)) { top[first] = 1; tops++; only = first } }
            cut = (tops == 1 && (!(only in seen) || seen[only] == "d")) ? length(only) + 2 : 1
            for (name in targets) links[tolower(substr(name, cut))] = targets[name]
            for (name in seen) {
                above = name
                while (sub(/\/[^\/]*$/, "", above)) if ((above in seen) && seen[above] != "d") refuse("a path below what is no directory: " name)
                first = tolower(substr(name, cut)); sub(/\/.*/, "", first)
                if (first == ".venv" || first == ".release") refuse("a name that belongs to updater: " name)
            }
            for (name in targets) follow(substr(name, cut), targets[name])
        }'
}

# check_archive: its names, before anything of it is unpacked
check_archive() {
    archive "$artifact" 2>"$work/said" | head -c 4294967297 | wc -c >"$work/size"
    [ -s "$work/said" ] && go_back 7 "$artifact_name is damaged: $(oneline "$(cat "$work/said")")" 'fetch it again; if it stays so, ask the publisher'
    [ "$(tr -d ' ' <"$work/size")" != 4294967297 ] || go_back 7 "$artifact_name unpacks to more than 4 GiB"
    archive "$artifact" | tar tf - >"$work/names" 2>"$work/said" || go_back 7 "$artifact_name is no archive of a release: $(oneline "$(cat "$work/said")")"
    archive "$artifact" | tar tvf - >"$work/long" 2>/dev/null
    [ "$(wc -l <"$work/names")" -eq "$(wc -l <"$work/long")" ] || go_back 7 "$artifact_name holds names that cannot be told apart"
    why_not=$(awk -v tab='\t' '
        NR == FNR { name[FNR] = $0; next }
        {
            kind = substr($0, 1, 1); target = ""
            said = name[FNR]; at = index($0, said " -> ")
            if (at) target = substr($0, at + length(said) + 4)
            else if (at = index($0, said " link to ")) { target = substr($0, at + length(said) + 9); kind = "h" }
            if (kind == "-" && target != "") kind = "h"
            print kind tab said tab target
        }' "$work/names" "$work/long" | check_names) || go_back 7 "$artifact_name is not what a release may be: $why_not" 'ask the publisher; nothing of it was unpacked'
    if grep -qi 'removing leading' "$work/said"; then go_back 7 "$artifact_name holds a name that leads out of it"; fi
}

# unpack_archive: sets $tree, $digest and $tree_id
unpack_archive() {
    mkdir "$unpacked/new" && archive "$artifact" | (cd -- "$unpacked/new" && tar xomf -) 2>"$work/said" ||
        go_back 3 "$artifact_name could not be unpacked: $(oneline "$(cat "$work/said")")" 'see whether the disk is full: df'
    tree=$unpacked/new count=0
    for one in "$unpacked/new"/* "$unpacked/new"/.[!.]* "$unpacked/new"/..?*; do
        if exists "$one"; then count=$((count + 1)) only_one=$one; fi
    done
    if [ $count = 1 ] && [ -d "$only_one" ] && [ ! -L "$only_one" ]; then tree=$only_one; fi
    [ -z "$(find "$tree" -name '*[[:cntrl:]]*' 2>/dev/null | head -n 1)" ] || go_back 7 "$artifact_name holds a name with a control character"
    why_not=$(cd -- "$tree" && on_disk | check_names) || go_back 7 "$artifact_name is not what a release may be: $why_not" 'ask the publisher'
    find "$tree" -type d -exec chmod 755 {} + && executables "$tree" chmod 555 && find "$tree" -type f ! -perm 555 -exec chmod 444 {} + ||
        go_back 3 'the modes of the release could not be set'
    version_file=published
    if ! exists "$tree/VERSION"; then
        version_file=written
    elif [ -L "$tree/VERSION" ] || [ ! -f "$tree/VERSION" ]; then
        go_back 7 'VERSION in the release is not a regular file'
    else
        said=$(head -c 200 "$tree/VERSION" | head -n 1 | tr -d '\r')
        [ "${said#v}" = "${tag#v}" ] || go_back 7 "the release says in its file VERSION that it is $(oneline "$said"), but its tag is $tag" 'ask the publisher; or give the right --tag'
    fi
    (cd -- "$tree" && manifest) >"$unpacked/manifest" || go_back 3 'its manifest could not be written'
    digest=$({ say 'updater-manifest 1'; cat "$unpacked/manifest"; } | sha256)
    tree_id=$(helper git_tree "$tree") || tree_id=
    if [ "$origin" = source ]; then
        if [ -n "$tree_id" ] && [ "$tree_id" = "$published_tree" ]; then
            proof="tree of commit $(printf '%.12s' "$commit")"
            good "$proof"
        elif [ -n "$tree_id" ] && ! find "$tree" -name .gitattributes -exec grep -q 'export-' {} \; -print | grep -q .; then
            go_back 7 "what was received is not the tree of commit $commit" 'try again; if it stays so, ask the publisher'
        else
            unproved 'GitHub gives no digest of a source tarball, and its tree could not be compared'
        fi
    fi
    [ "$version_file" = published ] || { printf '%s\n' "$tag" >"$tree/VERSION" && chmod 444 "$tree/VERSION"; } || go_back 3 'VERSION could not be written'
}

executables() {   # those files of a tree that anybody may execute
    top=$1
    shift
    find "$top" -type f \( -perm -100 -o -perm -010 -o -perm -001 \) -exec "$@" {} +
}

on_disk() {   # what a directory holds, as check_names wants it. One that was the single one at the top is off already: ./ stands in its place
    find . -type f | sed 's|^\./|-	top/|; s|$|	|'
    find . -type d ! -name . | sed 's|^\./|d	top/|; s|$|	|'
    find . -type l | while IFS= read -r path; do printf 'l\ttop/%s\t%s\n' "${path#./}" "$(readlink "$path")"; done
}

# manifest: of the directory that it is in
manifest() {
    # shellcheck disable=SC2086
    find . -type f -exec $sha_tool {} + >"$work/sha" && { find . -type f -exec stat -c '%s %a %n' {} + 2>/dev/null || find . -type f -exec stat -f '%z %Lp %N' {} +; } >"$work/stat" || return 1
    {
        find . -type d ! -name . | sed 's|^\./\(.*\)$|\1	D \1|'
        find . -type l | while IFS= read -r path; do printf '%s\tL %s\t%s\n' "${path#./}" "${path#./}" "$(readlink "$path")"; done
        awk '
            NR == FNR { size = $1; mode = $2; name = $0; sub(/^[0-9]+ [0-9]+ \.\//, "", name); sizes[name] = size; kinds[name] = (mode ~ /[1357]/) ? "X" : "F"; next }
            {
                name = $0
                if (sub(/^\\/, "", name)) gsub(/\\\\/, "\\", name)
                sum = substr(name, 1, 64); name = substr(name, 67); sub(/^\.\//, "", name)
                print name "\t" kinds[name] " " sum " " sizes[name] " " name
            }' "$work/stat" "$work/sha"
    } | sort -t '	' -k1,1 | cut -f2-
}

# ---------------------------------------------------------------- built

# helper WORD ARGS...: what needs more than a shell, by the Python that the environment is built with
helper() {
    "$python" -I -B -c '
import hashlib, json, os, re, stat, sys

def git_tree(top):
    rows = []
    for name in sorted(os.listdir(os.fsencode(top))):
        place = os.path.join(os.fsencode(top), name)
        seen = os.lstat(place)
        if stat.S_ISDIR(seen.st_mode):
            digest = git_tree(os.fsdecode(place))
            if digest is not None:
                rows.append((name + b"/", b"40000 " + name + b"\0" + digest))
        else:
            link = stat.S_ISLNK(seen.st_mode)
            content = os.readlink(place) if link else open(place, "rb").read()
            mode = b"120000" if link else b"100755" if seen.st_mode & 0o111 else b"100644"
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).digest()
            rows.append((name, mode + b" " + name + b"\0" + blob))
    if not rows:
        return None
    body = b"".join(row for _, row in sorted(rows))
    return hashlib.sha1(b"tree %d\0" % len(body) + body).digest()

def listing(top):
    lines, folders = [], []
    for entry in sorted(os.scandir(top), key=lambda it: it.name):
        if entry.is_symlink():
            lines.append(f"{entry.name} -> {os.readlink(entry.path)}\n")
        elif entry.is_dir(follow_symlinks=False):
            folders.append(entry)
        else:
            seen = entry.stat(follow_symlinks=False)
            lines.append(f"{entry.name} {seen.st_size} {seen.st_mtime_ns}\n")
    lines += [f"{it.name}/ {listing(it.path)}\n" for it in folders]
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()

def fits(wanted):
    mine = list(sys.version_info[:3])
    for sign, text in re.findall(r"(>=|<=|==|!=|~=|<|>)\s*([0-9.]+)", wanted):
        theirs = [int(part) for part in text.strip(".").split(".")]
        cut = mine[: len(theirs)]
        if not {">=": cut >= theirs, "<=": cut <= theirs, "==": cut == theirs, "!=": cut != theirs, "<": cut < theirs, ">": cut > theirs,
                "~=": cut >= theirs and mine[: len(theirs) - 1] == theirs[:-1]}[sign]:
            return False
    return True

def packages(environment):
    import glob
    found = set()
    for path in glob.glob(glob.escape(environment) + "/lib/python*/site-packages/*.dist-info"):
        name, _, version = os.path.basename(path)[: -len(".dist-info")].rpartition("-")
        found.add((re.sub(r"[-_.]+", "-", name).lower(), version))
    return sorted(found)

word, *rest = sys.argv[1:]
if word == "git_tree":
    print((git_tree(rest[0]) or hashlib.sha1(b"tree 0\0").digest()).hex())
elif word == "about":
    import venv
    print(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))
    sys.exit(0 if sys.version_info.releaselevel == "final" and fits(rest[0]) else 1)
elif word == "record":
    release, told = rest[0], dict(pair.split("=", 1) for pair in rest[1:])
    environment = release + "/.venv"
    seen = os.stat(environment + "/bin/python")
    numbers = {"files", "size"}
    record = {key: int(told[key]) if key in numbers else told[key] or None for key in told if not key.startswith(("environment.", "artifact."))}
    for key in ("tree", "proof", "notes"):
        record[key] = record.get(key) or ""
    record["artifact"] = {key[9:]: int(told[key]) if key == "artifact.size" else told[key] for key in told if key.startswith("artifact.")}
    record["environment"] = {
        "tool": told["environment.tool"], "tool_version": told["environment.tool_version"], "kind": told["environment.kind"],
        "files": told["environment.files"].split(), "python": told["environment.python"],
        "python_version": ".".join(map(str, sys.version_info[:3])), "interpreter": f"{seen.st_size}:{seen.st_mtime_ns}",
        # of no other environment, so nothing is built upon this one
        "fingerprint": hashlib.sha256(os.urandom(32)).hexdigest(), "listing": listing(environment), "packages": packages(environment),
        "seconds": float(told["environment.seconds"]), "cloned_from": None, "origins": None,
    }
    record["format"] = 1
    print(json.dumps(record, indent=2, sort_keys=True))
' "$@"
}

# choose_python: sets $python; what updater.toml names, else what the release in service runs with, else the newest that fits
choose_python() {
    named=$(toml "$config" environment python) || named=
    tool=$(toml "$config" environment tool) || tool=auto
    candidates="$named"
    case $named in
        */*) ;;
        ?*) candidates=python$named ;;
        *)
            before=$(sed -n 's/^    "python": "\(.*\)",\{0,1\}$/\1/p' "$root/releases/${from:-none}/.release/release.json" 2>/dev/null | head -n 1)
            candidates="$before
python3.14
python3.13
python3.12
python3.11
python3.10
python3.9
python3
python"
            ;;
    esac
    needs=''   # what the release asks for is known once it is unpacked
    pick_python || fail 3 "no Python that can be used is here${named:+ ([environment] python = $named)}" 'Nothing was changed.' 'install python3, or name one by its path: [environment] python in updater.toml'
    uv=
    if [ "$tool" != venv ]; then uv=$(command -v uv) || uv=; fi
    [ "$tool" != uv ] || [ -n "$uv" ] || fail 3 'updater.toml asks for uv ([environment] tool), and it is not here' 'Nothing was changed.' 'install uv'
}

pick_python() {
    while IFS= read -r one; do
        [ -n "$one" ] || continue
        case $one in */shims/*) continue ;; esac
        python=$(command -v "$one" 2>/dev/null) || continue
        if found=$(helper about "$needs" 2>/dev/null); then python=$found; return 0; fi
    done <<CANDIDATES
$candidates
CANDIDATES
    return 1
}

# wants: sets $kind_of, $files (of requirements) and $project, by the rules of updater
wants() {
    files='' project=0 pyproject=$dest/pyproject.toml
    installable=0
    if { [ -f "$pyproject" ] && grep -q '^[[:space:]]*\[build-system\]' "$pyproject"; } || [ -f "$dest/setup.py" ]; then installable=1; fi
    if [ -f "$pyproject" ] && [ "$(toml "$pyproject" tool.uv package)" = false ]; then installable=0; fi
    given=$(toml "$config" environment requirements)
    case $? in
        2) go_back 3 'a shell cannot read [environment] requirements in updater.toml' 'write it as a plain list of names' ;;
        0)
            for one in $given; do
                if [ "$one" = . ]; then project=1; else files="$files $one"; fi
            done
            kind_of=requirements
            [ -n "$files" ] || kind_of=project
            for one in $files; do [ -f "$dest/$one" ] || go_back 3 "$one is not in the release" 'correct [environment] requirements in updater.toml'; done
            return
            ;;
    esac
    if [ -f "$dest/uv.lock" ] && [ -s "$pyproject" ]; then kind_of=uv.lock files='uv.lock pyproject.toml' project=$installable; return; fi
    if [ -f "$dest/pylock.toml" ]; then kind_of=pylock files=pylock.toml; return; fi
    for one in requirements.txt requirements-prod.txt requirements-production.txt requirements/prod.txt requirements/production.txt requirements/base.txt requirements.lock; do
        if [ -f "$dest/$one" ]; then kind_of=requirements files=$one; return; fi
    done
    kind_of=none
    if [ $installable = 1 ]; then kind_of=project project=1; return; fi
    found=$(toml "$pyproject" project dependencies)
    case $?,$found in 1,* | 0,) ;; *) kind_of=requirements files=pyproject.toml ;; esac
}

build() {
    begun_at=$(clock)
    wants
    needs=$(toml "$dest/pyproject.toml" project requires-python) || needs=
    pick_python || go_back 3 "no Python here fits what the release asks for: $needs" 'install one that does, or name it: [environment] python in updater.toml'
    case $kind_of-$files in
        uv.lock-* | pylock-* | *-pyproject.toml) [ -n "$uv" ] || go_back 3 "the release brings ${files%% *}, which pip cannot install from: it needs uv" 'install uv (https://docs.astral.sh/uv), and run this again' ;;
    esac
    for one in $files; do   # updater knows how to build what lies elsewhere, and what is installed as a pointer
        case $one in *.toml | uv.lock) continue ;; esac
        if grep -qE '^[[:space:]]*(-e|--editable)|file:|^[[:space:]]*(\.|/|~)|@[[:space:]]*(\.|/)|\.\./' "$dest/$one"; then
            go_back 3 "$one asks for folders or for something editable: a shell does not build that" "updater deploy $tag"
        fi
    done
    builds_in=$dest
    if [ $project = 1 ]; then   # what builds it writes beside the sources
        builds_in=$unpacked/project
        mkdir "$builds_in" && (cd -- "$dest" && tar cf - --exclude ./.release .) | (cd -- "$builds_in" && tar xf -) && chmod -R u+w "$builds_in" || go_back 3 'the release could not be copied to build it' 'see whether the disk is full: df'
    fi
    venv=$dest/.venv
    remove_tree "$venv"
    say "  $(helper_version), $([ -n "$uv" ] && printf uv || printf 'venv and pip')"
    (build_with) >"$work/built" 2>&1 </dev/null &
    builder=$!   # waited for and not run: a shell hears no signal while it runs something
    wait "$builder" || {
        builder=
        tail -n 15 "$work/built" | plainly | sed 's/^/    /' >&2
        go_back 3 'the environment could not be built' 'see the lines above (the network? a compiler?)'
    }
    builder=
    [ "$builds_in" = "$dest" ] || remove_tree "$builds_in"
    if grep -lqs '"editable": *true' "$venv"/lib/python*/site-packages/*.dist-info/direct_url.json; then go_back 3 'something was installed as editable: it would change with the folder that it points to'; fi
    find "$venv" -type f -exec chmod a-w {} +
    built_in=$(($(clock) - begun_at))
}

helper_version() { "$python" --version 2>&1; }

# apart COMMAND...: in a session of its own that is on record, as a child of updater's: whoever finds this script dead ends all of it
apart() {
    if has perl; then
        perl -e 'use POSIX; POSIX::setsid(); exec { $ARGV[0] } @ARGV; exit 127' "$@" &
    elif has setsid; then
        setsid "$@" &
    else
        "$@"
        return
    fi
    child=$!
    { printf 'pid=%s\nstart=%s\nboot=%s\n' "$child" "$(started "$child")" "$(boot)" >"$own/run/child"; } 2>/dev/null || :
    wait "$child"
    code=$?
    rm -f "$own/run/child"
    return $code
}

end_build() {   # the builder first, that it begins nothing more
    [ -n "${builder-}" ] || return 0
    kill -9 "$builder" 2>/dev/null
    child=$(field "$own/run/child" pid)
    case $child in '' | 0 | 1 | *[!0-9]*) ;; *)
        for one in $(table | sed -n "s/^ *\([0-9][0-9]*\)  *[^Z ][^ ]*  *[0-9]*  *$child *\$/\1/p"); do kill -9 "$one" 2>/dev/null; done ;;
    esac
    rm -f "$own/run/child"
    builder=
}

build_with() {   # in a subshell, without what would lead an installer astray out of its environment
    unset VIRTUAL_ENV PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONPYCACHEPREFIX PYTHONDONTWRITEBYTECODE PIP_TARGET PIP_USER PIP_PREFIX PIP_REQUIRE_VIRTUALENV \
        PIP_REQUIRE_HASHES CONDA_PREFIX UV_PROJECT_ENVIRONMENT UV_PYTHON UV_SYSTEM_PYTHON UV_TARGET UV_PREFIX UV_NO_SYNC UV_LINK_MODE __PYVENV_LAUNCHER__ || :
    UV_PYTHON_DOWNLOADS=never UV_NO_EDITABLE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
    export UV_PYTHON_DOWNLOADS UV_NO_EDITABLE PIP_DISABLE_PIP_VERSION_CHECK PIP_NO_INPUT
    cd -- "$builds_in" || return 1
    inside=$venv/bin/python
    if [ -n "$uv" ]; then
        apart "$uv" venv --quiet --relocatable --no-project --python "$python" "$venv" || return 1
    else
        apart "$python" -m venv "$venv" || return 1
    fi
    [ "$kind_of" != none ] || return 0
    if [ "$kind_of" = uv.lock ]; then
        files=$unpacked/requirements.lock
        apart "$uv" export --quiet --frozen --no-dev --no-emit-project --no-editable --no-header --output-file "$files" || return 1
    fi
    set --
    [ ! -d "$dest/wheels" ] || set -- --no-index --find-links "$dest/wheels"
    case $kind_of in
        uv.lock) with_uv sync "$@" "$files" || return 1 ;;
        pylock) with_uv sync "$@" pylock.toml || return 1 ;;
        requirements)
            for one in $files; do
                if grep -q -e '--hash=' "$one"; then set -- "$@" --require-hashes; break; fi
            done
            for one in $files; do set -- "$@" -r "$one"; done
            if [ -n "$uv" ]; then with_uv install "$@"; else apart "$inside" -m pip install --progress-bar off "$@"; fi || return 1
            ;;
    esac
    [ "$project" = 1 ] || return 0
    set -- "$builds_in"
    [ -z "$files" ] || set -- --no-deps "$@"
    [ ! -d "$dest/wheels" ] || set -- --no-index --find-links "$dest/wheels" "$@"
    if [ -n "$uv" ]; then with_uv install "$@"; else apart "$inside" -m pip install --progress-bar off "$@"; fi
}

with_uv() {
    verb=$1
    shift
    apart "$uv" pip "$verb" --quiet --python "$inside" --compile-bytecode --link-mode copy "$@"
}

# ---------------------------------------------------------------- linked, and sealed

check_links() {   # may they be as the configuration has them?
    while IFS='	' read -r inside below; do
        [ -n "$inside" ] || continue
        for path in "$inside" "$below"; do
            case /$path/ in //* | */../* | */./* | *//*) problem "[shared] \"$inside\": not a plain path: $path"; return 1 ;; esac
        done
        case $inside in .venv | .venv/* | .release | .release/* | VERSION | VERSION/*) problem "[shared] \"$inside\" belongs to updater"; return 1 ;; esac
        case $below in backups | backups/*) problem "[shared] \"$inside\": shared/backups belongs to updater"; return 1 ;; esac
    done <<LINKS
$shared_links
LINKS
}

# link_shared: as updater makes the links: what the release brings at such a path goes to .release/shadowed
link_shared() {
    lacking=
    links_json=
    while IFS='	' read -r inside below; do
        [ -n "$inside" ] || continue
        links_json="$links_json${links_json:+,}
 $(json_path "$inside"): $(json_path "$below")"
    done <<LINKS
$(printf '%s\n' "$shared_links" | sort)
LINKS
    if [ -n "$links_json" ]; then printf '{%s\n}\n' "$links_json" | write "$dest/.release/links.json" || go_back 3 'links.json could not be written'; fi
    while IFS='	' read -r inside below; do
        [ -n "$inside" ] || continue
        link_one "$inside" "$below" || go_back 3 "the link $inside could not be made"
    done <<LINKS
$shared_links
LINKS
    [ -z "$lacking" ] || go_back 3 "shared files must be provided first:$lacking" 'provide what is missing, look through it, and run this again'
}

link_one() {
    spot=$dest/$1 target=$root/shared/$2 shadow=$dest/.release/shadowed/$1
    above=$(dirname -- "$1") up=../../
    if [ "$above" != . ]; then
        mkdir -p "$dest/$above" || return 1
        real=$(cd -- "$dest/$above" && pwd -P)
        [ "$real" = "$(cd -- "$dest" && pwd -P)/$above" ] || { problem "$1 leads through a symlink that the release brings"; return 1; }
        up=$(printf '%s' "$above" | sed 's|[^/][^/]*|..|g')/$up
    fi
    if exists "$spot"; then
        mkdir -p "$(dirname -- "$shadow")" && mv "$spot" "$shadow" || return 1
    fi
    ln -s "${up}shared/$2" "$spot" || return 1
    exists "$target" && return 0
    if [ -f "$shadow" ]; then
        lacking="$lacking shared/$2 (to start from the release's own: cp releases/$coming/$1 shared/$2)"
        return 0
    fi
    case ${2##*/} in
        .env | .env.* | *.env | ?*.*) if [ -d "$shadow" ]; then mkdir -p "$target"; else mkdir -p "$(dirname -- "$target")"; fi ;;
        *) mkdir -p "$target" ;;
    esac
}

seal() {
    { say 'updater-manifest 1'; cat "$unpacked/manifest"; } | write "$dest/.release/manifest" &&
        say 'updater-manifest 1' | write "$dest/.release/bytecode" &&
        {
            printf '%s\n' "$shared_links" | awk -F '\t' -v manifest="$unpacked/manifest" '
                $1 != "" { link[$1] = 1 }
                END {
                    while ((getline line < manifest) > 0) {
                        if (line !~ /^[FX] /) continue
                        sum = substr(line, 3, 64); name = substr(line, 68); sub(/^[0-9]+ /, "", name)
                        for (one in link) if (name == one || index(name, one "/") == 1) { name = ".release/shadowed/" name; break }
                        if (name == "-") name = "./-"
                        if (name ~ /\\/) { gsub(/\\/, "\\\\", name); sum = "\\" sum }
                        print sum "  " name
                    }
                }'
            [ "$version_file" = published ] || printf '%s  VERSION\n' "$(sha256 <"$dest/VERSION")"
        } | write "$dest/.release/SHA256SUMS" || go_back 3 'the seal could not be written' 'see whether the disk is full: df'
    flush   # everything that the seal names is on the disk before it
    counted=$(awk '/^[FX] / { files++; size += $3 } END { printf "%d %d", files, size }' "$unpacked/manifest")
    artifact_kind=$origin
    tool_name=venv tool_version=$("$python" --version 2>&1 | sed 's/.* //')
    if [ -n "$uv" ]; then tool_name=uv tool_version=$("$uv" --version | sed 's/^uv \([^ ]*\).*/\1/'); fi
    helper record "$dest" version="$coming" tag="$tag" digest="sha256:$digest" tree="$tree_id" proof="$proof" source="$source_text" commit="$commit" \
        version_file="$version_file" installed_at="$(moment)" published_at="$published_at" files="${counted% *}" size="${counted#* }" notes= \
        artifact.name="$artifact_name" artifact.kind="$artifact_kind" artifact.sha256="$artifact_sha" artifact.size="$artifact_size" \
        environment.tool="$tool_name" environment.tool_version="$tool_version" environment.kind="$kind_of" environment.files="$files" \
        environment.python="$python" environment.seconds="$built_in" >"$work/release.json" &&
        write "$dest/.release/release.json" <"$work/release.json" || go_back 3 'the seal could not be written' 'see whether the disk is full: df'
    rm -f "$dest/.release/unfinished"
    flush "$dest/.release"
    remove_tree "$unpacked"
}

# make_launchers: those of the release before, for this one: they hold the version in one line and a comment. What it ran with goes along,
# and what this release had when it was last in service goes: neither says which processes there are now
make_launchers() {
    [ -d "$own/launchers/$from" ] || return 0
    mkdir -p "$own/launchers/$coming" && chmod 700 "$own/launchers" "$own/launchers/$coming" || go_back 4 'launchers could not be written'
    its=" $(names_of "$from" | tr '\n' ' ')"
    for launcher in "$own/launchers/$coming"/*; do
        case $its in *" ${launcher##*/} "*) ;; *) rm -f "$launcher" ;; esac
    done
    for launcher in "$own/launchers/$from"/*; do
        name=${launcher##*/}
        case $its in *" $name "*) ;; *) continue ;; esac
        # only the first: what is configured may hold such a line
        awk -v version="$(quoted "$coming")" -v name="$coming" '
            NR == 2 { sub(/ of release .*\. Written by/, " of release " name ". Written by") }
            !done && /^version=/ { $0 = "version=" version; done = 1 }
            { print }' "$launcher" | write "$own/launchers/$coming/$name" 700 || go_back 4 'launchers could not be written'
    done
    kept=$own/configurations/$from.toml
    if [ ! -f "$kept" ]; then
        rm -f "$own/configurations/$coming.toml"
    else
        # its mode as well: it may hold a password
        beside=$own/configurations/$(temporary "$coming")
        cp -p "$kept" "$beside" && sed "1s/^# updater.toml as .* was last started/# updater.toml as $coming was last started/" "$kept" >"$beside" &&
            mv -f "$beside" "$own/configurations/$coming.toml" || { rm -f "$beside"; go_back 4 'the configuration of the launchers could not be written'; }
        sed 1d "$kept" | cmp -s - "$config" ||
            warn "updater.toml was changed since $from was started: the processes are started as $from was. Then: updater restart"
    fi
}
