#!/usr/bin/env bats
# What must work under every shell.

load helpers

@test "back to the release that was good before, by the records" {
    fresh
    start v1.1.0
    ends 0 script emergency_rollback.sh --yes
    says 'in service: v1.1.0' 'back to:    v1.0.0' 'v1.0.0 is in service and healthy'
    runs v1.0.0
    tidy
    [ "$(readlink "$root/.updater/good")" = ../releases/v1.0.0 ]
    agrees v1.0.0 'last        rollback v1.1.0 → v1.0.0: succeeded'
    runs v1.0.0
}

@test "to a release by its name, without its v, where nothing runs" {
    fresh
    ln -sfn releases/v1.0.0 "$root/current"
    ends 0 script emergency_rollback.sh 1.1.0 --yes
    says 'back to:    v1.1.0'
    runs v1.1.0
    agrees v1.1.0
}

@test "a deployment killed after its start is undone, its processes are ended" {
    fresh killed-started
    start v1.2.0
    ends 0 script emergency_rollback.sh --yes
    says 'The deployment of v1.2.0 was interrupted: it is undone' 'v1.1.0 is in service and healthy'
    runs v1.1.0
    tidy
    agrees v1.1.0 'last        deploy v1.1.0 → v1.2.0: rolled-back'
}

@test "cleanup undoes a deployment killed after the stop, and removes what it left" {
    fresh killed-stopped
    rm "$root/releases/v1.2.0/.release/release.json"
    echo 'deployment=x' >"$root/releases/v1.2.0/.release/unfinished"
    mkdir "$root/releases/.tmp-v1.2.0-123-0123abcd" "$root/releases/.tmp-mine"
    ends 0 script cleanup_failed_update.sh --yes
    says 'it is undone' 'releases/v1.2.0' 'in service: v1.1.0'
    runs v1.1.0
    [ ! -e "$root/releases/v1.2.0" ]
    rmdir "$root/releases/.tmp-mine"
    tidy
    agrees v1.1.0 'last        deploy v1.1.0 → v1.2.0: rolled-back'
}

@test "unlock finishes a deployment killed after its commit" {
    fresh killed-committed
    start v1.2.0
    ends 0 script unlock_update.sh --yes
    says 'was interrupted after its commit: it is finished' 'The lock is free; in service: v1.2.0'
    runs v1.2.0
    tidy
    agrees v1.2.0 'last        deploy v1.1.0 → v1.2.0: succeeded'
}

@test "force_stop ends what is ours and nothing else" {
    fresh
    start v1.1.0
    # another root, and the same command lines elsewhere
    other=$scratch/other
    cp -a "$root" "$other"
    rm -f "$other"/.updater/run/*
    mkdir "$scratch/decoy" && cp "$root/releases/v1.1.0/bot.sh" "$root/releases/v1.1.0/VERSION" "$scratch/decoy"
    (cd "$scratch/decoy" && exec env UPDATER_SHARED="$scratch" sleep 3600) 3>&- &
    decoy=$!
    disown
    mine=$root root=$other
    start v1.1.0
    root=$mine
    # a pid that another process has now
    sed "s/^pid=.*/pid=$decoy/" "$root/.updater/run/idle.pid" >"$root/.updater/run/old.pid"
    ends 0 script force_stop.sh --yes
    says 'bot of v1.1.0' 'idle of v1.1.0' 'Nothing of it runs any more'
    stopped
    alive "$decoy"
    root=$other
    living bot v1.1.0
    living idle v1.1.0
    # the pid files of the original name nothing of the copy
    root=$mine
    cp "$other"/.updater/run/*.pid "$root/.updater/run/"
    ends 0 script force_stop.sh --yes
    says 'Nothing of' 'runs'
    root=$other
    living bot v1.1.0
    living idle v1.1.0
}

@test "a living holder of the lock is named, a dead one is none" {
    fresh
    flock -F "$root/.updater/lock" sleep 3600 3>&- &
    holder=$!
    disown
    owner "$holder" deploy
    for name in emergency_rollback.sh cleanup_failed_update.sh; do
        unchanged 6 script $name --yes
        says 'another operation is at work on this root: deploy (pid '"$holder" 'unlock_update.sh'
    done
    unchanged 6 script unlock_update.sh --yes
    says "deploy (pid $holder" 'it is at work'
    kill -9 $holder
    eventually gone $holder
    ends 0 script unlock_update.sh --yes
    says 'No living process says that it holds the lock' 'The lock is free'
    tidy
}

@test "help, wrong words, and a question that nobody can answer change nothing" {
    fresh
    for name in emergency_rollback force_stop unlock_update cleanup_failed_update; do
        unchanged 0 script $name.sh --help
        says 'usage: sh' '--root DIR' 'Ends with 0'
        unchanged 2 script $name.sh --yse
        says 'there is no option --yse' 'Nothing was changed' '--help'
    done
    unchanged 2 script emergency_rollback.sh v1.0.0 v1.1.0
    unchanged 2 script emergency_rollback.sh --root
    unchanged 2 script emergency_rollback.sh --root "$scratch"
    says 'is not a root'
    unchanged 2 script emergency_rollback.sh
    says 'Nobody can answer' 'run it again with --yes'
    unchanged 2 script emergency_rollback.sh v9
    says 'there is no release v9' 'v1.0.0                   good' 'v1.1.0                   good, in service'
}

@test "a dry run writes nothing" {
    fresh killed-stopped
    mkdir "$root/releases/.tmp-v1.2.0-123-0123abcd"
    unchanged 0 script emergency_rollback.sh --dry-run
    says 'back to:    v1.1.0' 'It would'
    unchanged 0 script cleanup_failed_update.sh --dry-run
    says 'to be undone' 'to be removed: releases/.tmp-v1.2.0-123-0123abcd'
    unchanged 0 script unlock_update.sh --dry-run
    says 'unfinished' 'v1.2.0'
    unchanged 0 script force_stop.sh --dry-run
}

@test "a changed file is named, and refused without --force" {
    fresh
    chmod u+w "$root/releases/v1.0.0/VERSION"
    rm "$root/releases/v1.0.0/bot.sh"
    printf '%s\n' 'sleep 3600' >"$root/releases/v1.0.0/bot.sh"
    unchanged 7 script emergency_rollback.sh --yes
    says 'v1.0.0 was changed' 'bot.sh' 'Nothing was changed' '--force'
    ends 0 script emergency_rollback.sh --yes --force --no-start
    in_service v1.0.0
}
