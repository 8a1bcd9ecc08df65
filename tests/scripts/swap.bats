#!/usr/bin/env bats
# The swap of current is one rename(2). Under one shell, and under busybox with its own tools.

load helpers

# inside COMMANDS: with the functions of lib.sh, for this root
inside() {
    # shellcheck disable=SC2086
    env -i PATH="$tools" "${trace[@]}" $UNDER -c 'scripts=$0/scripts; . "$0/scripts/lib.sh"; yes=1; root=$0 own=$0/.updater logs=$0/shared/logs; '"$1" "$root" 3>&-
}

@test "strace sees a rename over current, and nothing that removes it" {
    command -v strace >/dev/null || skip 'NOT TESTED: no strace here'
    strace -o /dev/null true 2>/dev/null || skip 'NOT TESTED: strace may not trace here'
    fresh
    trace=(strace -f -qq -e 'trace=rename,renameat,renameat2,unlink,unlinkat,rmdir,symlink,symlinkat' -o "$scratch/calls")
    trace[0]=$(command -v strace)
    ends 0 inside 'put_in_service v1.0.0'
    in_service v1.0.0
    renames=$(grep -E 'rename.*/current"' "$scratch/calls" | grep -vc '= -1')
    [ "$renames" = 1 ] || { cat "$scratch/calls"; return 1; }
    # what is removed or made has a temporary name, whatever directory it is told relative to
    if grep -E '(unlink|rmdir|symlink)' "$scratch/calls" | grep -v '= -1' | grep -E '"[^"]*/?(current|VERSION)"' | grep -vF .tmp-; then
        echo 'current was removed, or made in place'
        return 1
    fi
}

@test "who reads it all the time never sees it missing" {
    fresh
    (
        while [ ! -e "$scratch/done" ]; do
            [ -L "$root/current" ] && [ -d "$root/current/.release" ] && read -r _ <"$root/current/VERSION" || echo missing
        done >"$scratch/seen" 2>&1
    ) 3>&- &
    reader=$!
    # what is flushed is no matter here, and costs time
    ends 0 inside 'flush() { :; }; for n in 1 2 3 4 5 6 7 8 9 10; do put_in_service v1.0.0 && put_in_service v1.1.0 || exit 1; done'
    touch "$scratch/done"
    wait $reader
    [ ! -s "$scratch/seen" ] || { sort "$scratch/seen" | uniq -c | head; return 1; }
    in_service v1.1.0
    tidy
}
