#!/usr/bin/env bats
# Roots that are not as they should be.

load helpers

@test "without records it lists what is there and asks for a name; by name it works and says what is missing" {
    fresh
    rm -rf "$root/.updater"
    unchanged 2 script emergency_rollback.sh --yes
    says 'the records name no good release' 'v1.0.0                   installed' 'v1.1.0                   installed, in service' 'emergency_rollback.sh'
    ends 5 script emergency_rollback.sh v1.0.0 --yes
    says 'its launchers' 'are not there' '[processes.bot]' 'command = ["sh", "bot.sh"]' 'Next: updater start'
    in_service v1.0.0
    agrees v1.0.0 'rollback v1.1.0 → v1.0.0: rollback-failed'
    ends 0 "$UPDATER" --root "$root" start
    runs v1.0.0
}

@test "current is missing" {
    fresh
    rm "$root/current"
    ends 0 script emergency_rollback.sh --yes --no-start
    says 'in service: nothing' 'back to:    v1.1.0'
    agrees v1.1.0
}

@test "current leads to a release that is gone" {
    fresh
    ln -sfn releases/v9 "$root/current"
    ends 0 script emergency_rollback.sh --yes --no-start
    says 'in service: v9' 'back to:    v1.1.0'
    agrees v1.1.0
}

@test "current is a directory, or a file: refused, and untouched" {
    fresh
    rm "$root/current"
    mkdir "$root/current"
    echo precious >"$root/current/file"
    unchanged 3 script emergency_rollback.sh --yes
    says 'is not a symlink but a real directory or file' 'Nothing was changed' 'mv current current.aside'
    rm -r "$root/current"
    echo precious >"$root/current"
    unchanged 3 script emergency_rollback.sh v1.0.0 --yes
}

@test "current is absolute" {
    fresh
    ln -sfn "$root/releases/v1.1.0" "$root/current"
    ends 0 script emergency_rollback.sh --yes --no-start
    says 'in service: v1.1.0' 'back to:    v1.0.0'
    agrees v1.0.0
}

@test "a release without its seal is no release to go to" {
    fresh
    rm "$root/releases/v1.0.0/.release/release.json"
    unchanged 2 script emergency_rollback.sh v1.0.0 --yes
    says 'v1.0.0 is unfinished'
    unchanged 2 script emergency_rollback.sh --yes
    says 'no good release to go back to'
    unchanged 2 script emergency_rollback.sh ../v1.1.0 --yes
    says 'is not the name of a release'
}

@test "from the directory of the scripts, from a copy elsewhere, and by UPDATER_ROOT" {
    fresh
    from() { (cd "$1" && exec env -i PATH="$tools" "${@:2}"); }
    # shellcheck disable=SC2086
    ends 0 from "$root/scripts" $UNDER emergency_rollback.sh v1.0.0 --yes --no-start
    in_service v1.0.0
    cp -r "$root/scripts" "$scratch/scripts"
    # shellcheck disable=SC2086
    ends 0 from "$scratch" $UNDER scripts/emergency_rollback.sh v1.1.0 --yes --no-start --root="it's a root"
    in_service v1.1.0
    # shellcheck disable=SC2086
    ends 0 from "$scratch" UPDATER_ROOT="$root" $UNDER scripts/emergency_rollback.sh releases/v1.0.0/ --yes --no-start
    in_service v1.0.0
    agrees v1.0.0
}

@test "a release that failed is skipped, and can be had by its name" {
    fresh
    printf 'at=2026-01-01T00:00:00Z\nreason=no\n' >"$root/.updater/marks/v1.0.0.bad"
    unchanged 2 script emergency_rollback.sh --yes
    says 'v1.0.0                   bad'
    ends 0 script emergency_rollback.sh v1.0.0 --yes
    runs v1.0.0
    [ ! -e "$root/.updater/marks/v1.0.0.bad" ]
    agrees v1.0.0
}

@test "a release that does not start is told with what it wrote" {
    fresh
    touch "$root/shared/data/sick-1.0.0"
    ends 5 script emergency_rollback.sh --yes
    says 'bot' 'the exchange is down' 'v1.0.0 is in service'
    in_service v1.0.0
    agrees v1.0.0 'rollback v1.1.0 → v1.0.0: rollback-failed'
    rm "$root/shared/data/sick-1.0.0"
    ends 0 script emergency_rollback.sh v1.1.0 --yes
    runs v1.1.0
    agrees v1.1.0
}

@test "a release that runs and is not healthy is told with its probe" {
    fresh
    touch "$root/releases/v1.0.0/sick"
    ends 5 script emergency_rollback.sh --yes
    says 'v1.0.0 is in service, but it is not healthy: idle: test ! -e sick fails' '--restore-data'
    ends 0 "$UPDATER" --root "$root" status
    says 'rollback v1.1.0 → v1.0.0: rollback-failed'
}
