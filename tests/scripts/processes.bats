#!/usr/bin/env bats
# Stopping and starting. Under one shell, and under busybox with its own tools.

load helpers

@test "a process that ignores SIGTERM is killed after its time" {
    fresh
    touch "$root/shared/data/stubborn"
    start v1.1.0
    old=$(pid_of bot)
    ends 0 script emergency_rollback.sh --yes
    runs v1.0.0
    gone "$old"
    agrees v1.0.0
}

@test "processes without their pid files are found by their marks" {
    fresh
    start v1.1.0
    old=$(pid_of bot)
    rm "$root"/.updater/run/*.pid
    ends 0 script emergency_rollback.sh --yes
    gone "$old"
    runs v1.0.0
    agrees v1.0.0
}

@test "a pid file that names another process: that one lives on" {
    fresh
    start v1.1.0
    kill -9 "$(pid_of idle)"
    (cd / && exec sleep 3600) 3>&- &
    decoy=$!
    disown
    sed -i "s/^pid=.*/pid=$decoy/" "$root/.updater/run/idle.pid"
    ends 0 script emergency_rollback.sh --yes
    runs v1.0.0
    alive $decoy
    kill -9 $decoy
}

@test "what a script has started survives it, and the real updater stops it politely" {
    fresh
    ends 0 script emergency_rollback.sh --yes
    runs v1.0.0
    one=$(pid_of idle)
    [ "$(ps -o sid= -p "$one" | tr -d ' ')" != "$(ps -o sid= -p $$ | tr -d ' ')" ]
    ends 0 "$UPDATER" --root "$root" stop idle
    gone "$one"
    [ -n "$(pid_of bot)" ]
    agrees v1.0.0
}
