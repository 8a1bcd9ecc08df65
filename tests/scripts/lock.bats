#!/usr/bin/env bats
# The lock, on machines that lack what it is taken with.

load helpers

hold() {   # hold WHAT: somebody holds flock(2) on it
    (cd / && exec flock -F "$1" sleep 3600) 3>&- &
    holder=$!
    disown
    eventually grep -q sleep "/proc/$holder/comm"
}

@test "without flock, perl holds it, and sees who does" {
    fresh
    without flock
    ends 0 script emergency_rollback.sh --yes --no-start
    silent_on warning
    hold "$root/.updater/lock"
    owner $holder activate
    unchanged 6 script emergency_rollback.sh --yes --no-start
    says "activate (pid $holder"
    kill -9 $holder
    rm "$root/.updater/lock.owner"
    agrees v1.0.0
}

@test "without flock and perl, the record of its owner must do" {
    fresh
    without flock perl
    hold "$root/.updater/lock"
    owner $holder activate
    unchanged 6 script emergency_rollback.sh --yes --no-start
    says "activate (pid $holder"
    kill -9 $holder
    ends 0 script emergency_rollback.sh --yes
    says 'neither flock nor perl is here' 'start no other updater command'
    runs v1.0.0
    agrees v1.0.0
}

@test "a holder that has not said what for is waited for and left alone" {
    fresh
    for what in "$root/.updater/lock" "$root"; do
        hold "$what"
        ends 6 script emergency_rollback.sh --yes --no-start
        says 'has not said what for' 'Nothing was changed'
        in_service v1.1.0
        alive $holder
        kill -9 $holder
    done
    ends 0 script emergency_rollback.sh --yes --no-start
    agrees v1.0.0
}

@test "the child of a dead updater that keeps the lock is ended, in this root only" {
    fresh
    # in a session of its own, as updater starts one; the leader is dead, what it started keeps the lock
    (cd "$root" && exec setsid sh -c 'flock -F .updater/lock sleep 3600 & exec sleep 3600') 3>&- &
    leader=$!
    disown
    eventually grep -q sleep "/proc/$leader/comm"
    owner $leader deploy
    mkdir -p "$root/.updater/run"
    grep -e '^pid=' -e '^start=' -e '^boot=' "$root/.updater/lock.owner" >"$root/.updater/run/child"
    rm "$root/.updater/lock.owner"
    kill -9 $leader
    eventually gone $leader
    ends 0 script emergency_rollback.sh --yes --no-start
    in_service v1.0.0
    # the same record, and a session elsewhere: another root's, that this one was copied from
    (cd / && exec setsid flock -F "$root/.updater/lock" sleep 3600) 3>&- &
    leader=$!
    disown
    eventually grep -q sleep "/proc/$leader/comm"
    owner $leader deploy
    grep -e '^pid=' -e '^start=' -e '^boot=' "$root/.updater/lock.owner" >"$root/.updater/run/child"
    rm "$root/.updater/lock.owner"
    ends 6 script emergency_rollback.sh --yes --no-start
    alive $leader
    kill -9 $leader
}

@test "unlock ends a holder that hangs, or one that gets on with --force" {
    fresh
    hold "$root/.updater/lock"
    owner $holder deploy
    unchanged 0 script unlock_update.sh --dry-run --force
    ends 2 script unlock_update.sh --force
    says 'Nobody can answer'
    alive $holder
    ends 0 script unlock_update.sh --yes --force
    says 'it has ended' 'The lock is free'
    gone $holder
    hold "$root/.updater/lock"
    owner $holder deploy
    touch -d '40 minutes ago' "$root/.updater/lock.owner" "$root/shared/logs/update_progress.json"
    ends 0 script unlock_update.sh --yes
    says 'no progress for 30 minutes' 'The lock is free'
    agrees v1.1.0
}

@test "no sum tool: it says that nothing was verified, and goes on" {
    fresh
    without sha256sum shasum
    ends 0 script emergency_rollback.sh --yes --no-start
    says 'nothing here can tell whether v1.0.0 is as it was published'
    agrees v1.0.0
}
