#!/usr/bin/env bats
# Disks that are full, or cannot be written.

load helpers

small_disk() {   # the root is a filesystem of its own, of that size
    [ "$(id -u)" = 0 ] || skip 'NOT TESTED: needs root, it mounts a small filesystem'
    mkdir -p "$root"
    mount -t tmpfs -o "size=$1" tmpfs "$root" 2>/dev/null || skip 'NOT TESTED: nothing can be mounted here'
    mounted=$root
}

@test "a full disk: the way back needs no room" {
    small_disk 8m
    fresh
    start v1.1.0
    dd if=/dev/zero of="$root/shared/data/fill" bs=64k 2>/dev/null || :
    dd if=/dev/zero of="$root/shared/data/rest" bs=1 2>/dev/null || :
    if { echo more >"$root/shared/data/more"; } 2>/dev/null; then echo 'the disk is not full'; return 1; fi
    ends 0 script emergency_rollback.sh --yes
    runs v1.0.0
    rm -f "$root"/shared/data/fill "$root"/shared/data/rest "$root"/shared/data/more
    tidy
    agrees v1.0.0 'rollback v1.1.0 → v1.0.0: succeeded'
}

@test "a full disk without its ballast: current is swapped all the same, and what cannot be written is told" {
    small_disk 8m
    fresh
    rm -f "$root/.updater/ballast"
    dd if=/dev/zero of="$root/shared/data/fill" bs=64k 2>/dev/null || :
    dd if=/dev/zero of="$root/shared/data/rest" bs=1 2>/dev/null || :
    ends 0 script emergency_rollback.sh --yes --no-start
    in_service v1.0.0
    says 'full disk'
    rm -f "$root"/shared/data/fill "$root"/shared/data/rest
    ends 0 script emergency_rollback.sh v1.0.0 --yes
    runs v1.0.0
    tidy
    agrees v1.0.0
}

@test "a full disk without its ballast: what was interrupted is undone all the same, and once more by the records" {
    small_disk 8m
    fresh killed-activated
    rm -f "$root/.updater/ballast"
    printf '0123456789abcdef {"at":"2026' >>"$(echo "$root"/.updater/journal/*.jsonl)"   # so it has to be written anew
    dd if=/dev/zero of="$root/shared/data/fill" bs=64k 2>/dev/null || :
    dd if=/dev/zero of="$root/shared/data/rest" bs=1 2>/dev/null || :
    ends 0 script emergency_rollback.sh --yes --no-start
    in_service v1.1.0
    says 'that it goes back was not recorded' 'full disk'
    rm -f "$root"/shared/data/fill "$root"/shared/data/rest
    ends 0 "$UPDATER" --root "$root" recover
    says 'interrupted and rolled back'
    in_service v1.1.0
}

@test "a disk that cannot be written is told, and nothing is changed" {
    small_disk 8m
    fresh
    start v1.1.0
    mount -o remount,ro "$root" 2>/dev/null || { end_below "$root"; sleep 0.1; mount -o remount,ro "$root"; }
    unchanged 3 script emergency_rollback.sh --yes
    says 'cannot open the lock' 'Nothing was changed' 'disk'
    for name in cleanup_failed_update unlock_update; do
        unchanged 3 script $name.sh --yes
    done
    unchanged 0 script emergency_rollback.sh --dry-run
    says 'back to:    v1.0.0'
}

@test "stopped by force on a disk that cannot be written" {
    small_disk 8m
    fresh
    start v1.1.0
    rm -rf "$scratch/elsewhere"
    # what the processes write to is elsewhere, so that the disk can be made read-only under them
    end_below "$root"
    for name in data logs; do
        rm -rf "$root/shared/$name"
        mkdir -p "$scratch/elsewhere/$name"
        ln -s "$scratch/elsewhere/$name" "$root/shared/$name"
    done
    start v1.1.0
    mount -o remount,ro "$root" || skip 'NOT TESTED: this disk cannot be made read-only under a process'
    ends 0 script force_stop.sh --yes
    says 'Nothing of it runs any more'
    stopped
}
