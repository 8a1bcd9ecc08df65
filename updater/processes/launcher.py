"""The launcher of a process: a ``sh`` script for one process of one release.

It does everything by itself, so that a shell needs nothing else to start the application: finds the root from its own
place, enters the release's real directory (never through ``current``, F20), sets the environment, opens the log, writes
the pid file, and becomes the process.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import stat
from collections.abc import Sequence
from pathlib import Path

from updater import durable, shellwords
from updater.config import ProcessConfig
from updater.layout import Layout
from updater.processes import bound
from updater.processes.state import STARTED

LOG_KEPT = 20 * 1024**2
"""Bytes after which a process's log is moved to ``<name>.log.1`` at the next start."""

FIXED = ("PATH", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE")
"""Variables that ``env`` does not replace: its PATH comes after the release's own, and a release stays as it was sealed."""

PRIVATE = 0o700
"""The mode of launchers and of their directory."""

_TEXT = r"""#!/bin/sh
# Starts the process "@NAME@" of release @VERSION@. Written by updater, and run by its emergency scripts as well.
# By hand: sh "$0" &
@BOUND@
@SHORT@
set -eu
exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-   # a lock that a calling shell holds is not ours to keep

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
root=$(CDPATH='' cd -- "$here/../../.." && pwd -P)
version=@VERSION_QUOTED@
release=$root/releases/$version
pid_file=$root/.updater/run/@NAME@.pid
log=$root/shared/logs/@NAME@.log

started() {   # when did process $1 start? the same text that updater computes
    if [ -r "/proc/$1/stat" ]; then
        line=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
        line=${line##*) }   # before that comes a name that the process may have chosen, line breaks and all
        # shellcheck disable=SC2086
        set -- $line
        [ "$1" != Z ] && echo "${20}"
    else
        # shellcheck disable=SC2046
        set -- $(LC_ALL=C ps -o state=,lstart= -p "$1")
        case ${1-Z} in Z*) return 1 ;; esac
        shift
        echo "$*"
    fi
}

boot() {
    cat /proc/sys/kernel/random/boot_id 2>/dev/null || sysctl -n kern.bootsessionuuid 2>/dev/null || :
}

mark() {   # names this root beyond doubt, as device:inode: it stays with a root that is moved, and a copy has another
    # Not in POSIX: -c is GNU's and busybox's, -f is the BSDs'. Without either the inode must do.
    found=$(stat -c %d:%i "$root" 2>/dev/null) || found=$(stat -f %d:%i "$root" 2>/dev/null) || found=
    case $found in
        *[!0-9:]* | '')
            # shellcheck disable=SC2046
            set -- $(ls -di "$root")
            found=$1
            ;;
    esac
    echo "$found"
}

is_ours() {   # was a record with mark $1 written in this root? one without a device, or without a mark, is believed
    mine=$(mark)
    case $1 in
        '' | "$mine") return 0 ;;
        *:*) case $mine in *:*) return 1 ;; esac ;;
    esac
    [ "${1##*:}" = "${mine##*:}" ]
}

field() { if [ -f "$pid_file" ]; then sed -n "s/^$1=//p" "$pid_file" 2>/dev/null || :; fi; }

old=$(field pid)
if [ -n "$old" ] && is_ours "$(field root)" && [ "$(field boot)" = "$(boot)" ] \
    && [ "$(field start)" = "$(started "$old" 2>/dev/null || echo gone)" ]; then
    if [ -n "$(field stopping)" ]; then
        echo "error: @NAME@ is being stopped: wait until pid $old is gone" >&2
    else
        echo "error: @NAME@ is running already: pid $old of release $(field release)" >&2
    fi
    exit 1
fi

mkdir -p "$root/.updater/run" "$root/shared/logs"
if [ -e "$log" ] && [ ! -f "$log" ]; then
    echo "error: $log is not a regular file: move it away, and a new one is made" >&2
    exit 1
fi
if [ -f "$log" ] && [ "$(wc -c <"$log")" -gt @LOG_KEPT@ ]; then
    mv -f "$log" "$log.1"
fi

cd "$release"/@CWD@
since=$(date -u +%Y-%m-%dT%H:%M:%SZ)
echo "@STARTED@ $since, release $version, pid $$" >>"$log"
{
    echo "pid=$$"
    echo "start=$(started $$)"
    echo "boot=$(boot)"
    echo "root=$(mark)"
    echo "process=@NAME@"
    echo "release=$version"
    echo "since=$since"
} >"$pid_file.$$"
mv -f "$pid_file.$$" "$pid_file"

# From here on nothing but the shell itself: the programs on this PATH are for the process.
unset PYTHONPATH PYTHONHOME PYTHONSTARTUP UPDATER_TRIAL UPDATER_WORKER @SECRETS@ || :
export UPDATER_ROOT="$root" UPDATER_SHARED="$root/shared" UPDATER_RELEASE="$version" UPDATER_PROCESS=@NAME@
export UPDATER_TRIAL_FILE="$root/.updater/trial"
if [ -e "$UPDATER_TRIAL_FILE" ]; then export UPDATER_TRIAL=1; fi
export VIRTUAL_ENV="$release/.venv" PATH="$release/.venv/bin":@PATH@
export PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
set -- @COMMAND@
exec 3>>"$log"
# And from here on none of our own variables: these may have the same names.
@ENV@
exec "$@" >&3 2>&1 3>&- </dev/null
"""


def text(process: ProcessConfig, version: str, secrets: Sequence[str] = ()) -> str:
    """The launcher's text for one process of one release. ``secrets``: variables that are updater's alone; the process
    gets one only if its own ``env`` names it."""
    env = {name: value for name, value in process.env.items() if name not in FIXED}
    values = {
        "@BOUND@": bound.line(process),
        "@SHORT@": "\n".join(bound.for_shells(process)),
        "@NAME@": process.name,
        "@VERSION@": version,
        "@VERSION_QUOTED@": shlex.quote(version),
        "@LOG_KEPT@": str(LOG_KEPT),
        "@CWD@": shlex.quote(process.cwd),
        "@STARTED@": STARTED,
        "@SECRETS@": " ".join(secrets),
        "@ENV@": "\n".join(f"export {name}={shlex.quote(value)}" for name, value in env.items()),
        "@PATH@": shlex.quote(process.env["PATH"]) if "PATH" in process.env else '"$PATH"',
        "@COMMAND@": shellwords.command(process.command),
    }
    return re.sub(
        "@[A-Z_]+@", lambda mark: values[mark[0]], _TEXT
    )  # in one pass: a value may look like a mark


def write(layout: Layout, process: ProcessConfig, version: str, secrets: Sequence[str] = ()) -> Path:
    """Write the launcher if it is not there as it should be; returns its path. Only its owner may read it: ``env`` may
    hold passwords."""
    path = layout.launcher(version, process.name)
    wanted = text(process, version, secrets).encode()
    durable.make_directory(path.parent, PRIVATE)
    with contextlib.suppress(PermissionError):  # somebody else's directory keeps nobody from a start
        layout.launchers.chmod(PRIVATE)  # an earlier updater left it, and the launchers in it, open to all
    with contextlib.suppress(OSError):
        if durable.read(path) == wanted and stat.S_IMODE(path.stat().st_mode) == PRIVATE:
            return path
    durable.write(path, wanted, mode=PRIVATE)
    return path
