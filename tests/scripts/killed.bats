#!/usr/bin/env bats
# kill -9 in the middle of a script, then the same script again. SCRIPT_POINTS: how many points for each, spread evenly (0: every one).

load helpers

# counting: tools that count the script's changes to the disk. At number KILL_AT, everything of the script is killed: before the
# change if that is odd, after it if it is even.
counting() {
    local tool real
    cp -a "$tools" "$scratch/plain"
    without
    for tool in mv rm rmdir mkdir ln cp chmod; do
        real=$(readlink -f "$tools/$tool")
        rm "$tools/$tool"
        cat >"$tools/$tool" <<TOOL
#!/bin/sh
# what a launcher does is not counted: it is in a process group of its own
read -r _ _ _ _ group _ </proc/self/stat
read -r script <'$scratch/group'
[ "\$group" = "\$script" ] || exec $real "\$@"
read -r n <'$scratch/count'
n=\$((n + 1))
[ \$n -ne "\$KILL_AT" ] || { : >'$scratch/killed'; kill -9 0; }
$real "\$@" || exit
n=\$((n + 1))
echo \$n >'$scratch/count'
[ \$n -ne "\$KILL_AT" ] || { : >'$scratch/killed'; kill -9 0; }
TOOL
        chmod +x "$tools/$tool"
    done
}

# killed_at N SCRIPT: it runs in a session of its own and dies there
killed_at() {
    rm -f "$scratch/killed"
    echo 0 >"$scratch/count"
    (
        cd /
        # shellcheck disable=SC2016,SC2086
        exec setsid -w sh -c 'echo $$ >"$0"; exec "$@"' "$scratch/group" \
            env -i PATH="$tools" HOME="$scratch" KILL_AT="$1" $UNDER "$root/scripts/$2" --yes </dev/null >"$scratch/said" 2>&1 3>&-
    ) || :
}

# again_and_again SCRIPT POINTS BEFORE AFTER: at each of these points. BEFORE makes the root, AFTER looks at it.
again_and_again() {
    local total number points=${SCRIPT_POINTS:-$2} kills=0
    counting
    $3
    killed_at 0 "$1"
    $4
    read -r total <"$scratch/count"
    total=$((total - 4))   # the last ones are the note of where it went, and the lock: then it has been done
    if [ "$points" -le 0 ] || [ "$points" -gt $total ]; then points=$total; fi
    tools=$scratch/plain
    for ((number = 1; number <= points; number++)); do
        end_below "$scratch"
        rm -rf "$root"
        $3
        at=$((number * total / points - number % 2))
        tools=$scratch/tools killed_at $at "$1"
        if [ -e "$scratch/killed" ]; then kills=$((kills + 1)); fi
        echo "killed at $at of $total, having said:"   # bats shows it if what follows fails
        cat "$scratch/said"
        ends 0 script "$1" --yes
        $4
    done
    [ $kills -ge $((points - 1)) ]
}

undone() {
    runs v1.1.0
    agrees v1.1.0
    tidy
    [ "$(grep -c '"kind": *"deploy"' "$root/shared/logs/update_history.json")" = 3 ]
}

@test "the way back" {
    before() { fresh; start v1.1.0; }
    after() {
        runs v1.0.0
        agrees v1.0.0
        tidy   # a temporary name of a script that was killed is removed by the next command
        [ "$(grep -c '"origin": *"script"' "$root/shared/logs/update_history.json")" = 1 ]
    }
    again_and_again emergency_rollback.sh 3 before after
}

@test "the way back from a deployment that was killed" {
    before() { fresh killed-started; start v1.2.0; }
    again_and_again emergency_rollback.sh 2 before undone
}

@test "cleaning up" {
    before() {
        fresh killed-activated
        mkdir -p "$root/releases/v1.3.0/.release" "$root/releases/.tmp-v1.3.0-7-0123abcd"
        touch "$root/releases/v1.3.0/.release/unfinished" "$root/releases/v1.3.0/file"
    }
    after() {
        [ ! -e "$root/releases/v1.3.0" ]
        undone
    }
    again_and_again cleanup_failed_update.sh 2 before after
}

@test "unlocking" {
    before() { fresh killed-committed; start v1.2.0; }
    after() {
        runs v1.2.0
        agrees v1.2.0 'deploy v1.1.0 → v1.2.0: succeeded'
        tidy
    }
    again_and_again unlock_update.sh 2 before after
}
