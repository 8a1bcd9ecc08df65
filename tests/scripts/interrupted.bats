#!/usr/bin/env bats
# Deployments of v1.2.0 that were killed, v1.1.0 being in service before.

load helpers

@test "killed while it built: the way back is the release before the one that runs" {
    fresh killed-built
    start v1.1.0
    ends 0 script emergency_rollback.sh --yes
    says 'it is undone' 'v1.0.0 is in service and healthy'
    runs v1.0.0
    ends 0 "$UPDATER" --root "$root" recover
    agrees v1.0.0 'rollback v1.1.0 → v1.0.0: succeeded'
}

@test "killed while it built: cleanup leaves what runs alone" {
    fresh killed-built
    start v1.1.0
    bot=$(pid_of bot)
    ends 0 script cleanup_failed_update.sh --yes
    says 'it is undone' 'releases/v1.2.0'
    runs v1.1.0
    [ "$(pid_of bot)" = "$bot" ]
    [ ! -e "$root/releases/v1.2.0" ]
    tidy
    agrees v1.1.0 'deploy v1.1.0 → v1.2.0: failed'
}

@test "killed after the stop: the way back is what was in service" {
    fresh killed-stopped
    ends 0 script emergency_rollback.sh --yes
    says 'back to:    v1.1.0'
    runs v1.1.0
    tidy
    agrees v1.1.0
}

@test "killed after the swap: each of the three brings the old release back" {
    for name in emergency_rollback cleanup_failed_update unlock_update; do
        rm -rf "$root"
        fresh killed-activated
        ends 0 script $name.sh --yes
        says 'it is undone' 'current is v1.1.0 again'
        runs v1.1.0
        tidy
        agrees v1.1.0
        end_below "$root"
    done
}

@test "killed after the commit: it is finished, then gone back from" {
    fresh killed-committed
    start v1.2.0
    ends 0 script emergency_rollback.sh --yes
    says 'is finished' 'back to:    v1.1.0'
    runs v1.1.0
    tidy
    agrees v1.1.0 'rollback v1.2.0 → v1.1.0: succeeded'
}

@test "stopped by force after the start: nothing starts again by itself, the next command undoes it" {
    fresh killed-started
    start v1.2.0
    ends 0 script force_stop.sh --yes
    stopped
    ends 0 "$UPDATER" --root "$root" recover
    says 'interrupted and rolled back'
    in_service v1.1.0
    stopped
    ends 0 "$UPDATER" --root "$root" history
    says 'rolled-back'
}

@test "a torn last line, and a journal that cannot be read at all" {
    fresh killed-activated
    journal=$(echo "$root"/.updater/journal/*.jsonl)
    printf '0123456789abcdef {"at":"2026' >>"$journal"
    ends 0 script cleanup_failed_update.sh --yes
    runs v1.1.0
    tidy
    agrees v1.1.0 'deploy v1.1.0 → v1.2.0: rolled-back'
    end_below "$root"
    rm -rf "$root"
    fresh killed-activated
    journal=$(echo "$root"/.updater/journal/*.jsonl)
    echo garbage >"$journal"
    ends 0 script emergency_rollback.sh --yes
    in_service v1.1.0
    tidy
    agrees v1.1.0
}

@test "in a copy of a root, what ran in the original is not started" {
    cp -a "$TEMPLATES/killed-activated" "$root"
    ends 0 script cleanup_failed_update.sh --yes
    says 'is a copy'
    in_service v1.1.0
    stopped
    tidy
    agrees v1.1.0 'deploy v1.1.0 → v1.2.0: rolled-back'
}

@test "killed between a way back and its record: the record in the journal is written down whole" {
    fresh killed-activated
    journal=$(echo "$root"/.updater/journal/*.jsonl)
    id=$(basename "$journal" .jsonl)
    seq=$(($(wc -l <"$journal")))
    body='{"at":"2026-01-01T00:00:00.000Z","boot":"b","data":{"backup":null,"data":{"kept":"backup_20260101_000000","schema":"changed"},"ended":"2026-01-01T00:00:00.000Z","error":null,"from":"v1.1.0","id":"'$id'","kind":"deploy","origin":"shell","outcome":"rolled-back","phases":[],"started":"2026-01-01T00:00:00.000Z","to":"v1.2.0","warnings":[]},"kind":"end","mono":1.5,"phase":null,"seq":'$seq',"v":1}'
    printf '%s %s\n' "$(printf '%s' "$body" | sha256sum | cut -c1-16)" "$body" >>"$journal"
    ends 0 script emergency_rollback.sh v1.1.0 --yes
    ends 0 "$UPDATER" --root "$root" --json history
    says '"kept": "backup_20260101_000000"' '"outcome": "rolled-back"'
}
