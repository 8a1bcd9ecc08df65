"""Runs a command of the application: in a release, with its interpreter and environment, as its processes run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from updater import shellwords, subprocesses
from updater.layout import Layout, ReleaseFiles
from updater.piping import Finished

_OURS = (
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONSTARTUP",
    "UPDATER_PROCESS",
    "UPDATER_TRIAL",
    "UPDATER_TRIAL_FILE",
    "UPDATER_WORKER",
)


def run(
    layout: Layout,
    version: str | None,
    command: Sequence[str],
    *,
    timeout: float,
    env: Mapping[str, str] | None = None,
    cwd: str = ".",
    secrets: Sequence[str] = (),
    keep_fds: Sequence[int] = (),
    record: Path | None = None,
    on_line: Callable[[str], None] | None = None,
    on_output: Callable[[bytes], None] | None = None,
    feed: Iterable[bytes] | None = None,
    check: Callable[[], None] | None = None,
) -> Finished:
    """Run ``command``; its ``python`` is the release's own. ``timeout`` in seconds, ``cwd`` relative to the release.

    Without a ``version`` it runs in the root, with what is on the ``PATH``. ``secrets``: variables that are updater's alone.
    The rest is as for :func:`updater.subprocesses.run`.

    Raises:
        OSError: it cannot be started.
    """
    release = layout.root if version is None else layout.release(version)
    first, *rest = command
    word = first if version is None else _program(release, first)
    return subprocesses.run(
        [word, *rest], cwd=release / cwd, env=environment(layout, version, env, secrets), timeout=timeout,
        keep_fds=keep_fds, record=record, on_line=on_line, on_output=on_output, feed=feed, check=check,
    )  # fmt: skip


_SCRIPT = r"""#!/bin/sh
# Tells the application that it may go on. Written by updater, and run by its emergency scripts as well.
# By hand: sh "$0"
set -eu
exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-   # a lock that a calling shell holds is not ours to keep

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
root=$(CDPATH='' cd -- "$here/.." && pwd -P)
release=$(CDPATH='' cd -- "$root/current" && pwd -P)
version=${release##*/}
release=$root/releases/$version
cd "$release"
set -- @COMMAND@
unset @UNSET@ || :
export PYTHONDONTWRITEBYTECODE=1 UPDATER_ROOT="$root" UPDATER_SHARED="$root/shared" UPDATER_RELEASE="$version"
export VIRTUAL_ENV="$release/.venv" PATH="$release/.venv/bin:${PATH:-/bin:/usr/bin}"
exec "$@" </dev/null
"""


def script(command: Sequence[str], secrets: Sequence[str] = ()) -> str:
    """A ``sh`` script in ``.updater`` that does what :func:`run` does, in the release that is in service when it is run."""
    return _SCRIPT.replace("@UNSET@", " ".join([*_OURS, *secrets])).replace(
        "@COMMAND@", shellwords.command(command)
    )  # last: a command may hold anything


def _program(release: Path, first: str) -> str:
    """As a launcher has it: ``python`` is the release's own, a path with ``./`` goes by ``cwd``, another by the release."""
    if first in ("python", "python3"):
        return str(_own(release) / "python")
    return first if "/" not in first or first.startswith(("./", "../")) else str(release / first)


def environment(
    layout: Layout, version: str | None, env: Mapping[str, str] | None = None, secrets: Sequence[str] = ()
) -> dict[str, str]:
    """The variables that a command of a release gets; ``env`` are its own."""
    inherited = {name: it for name, it in os.environ.items() if name not in _OURS and name not in secrets}
    whole = {
        **inherited,
        **(env or {}),
        "PYTHONDONTWRITEBYTECODE": "1",
        "UPDATER_ROOT": str(layout.root),
        "UPDATER_SHARED": str(layout.shared),
    }
    if version is not None:
        own = _own(layout.release(version))
        whole |= {
            "PATH": f"{own}{os.pathsep}{whole.get('PATH', os.defpath)}",
            "VIRTUAL_ENV": str(own.parent),
            "UPDATER_RELEASE": version,
        }
    return whole


def _own(release: Path) -> Path:
    return release / ReleaseFiles.ENVIRONMENT / "bin"


def is_there(
    layout: Layout, version: str | None, command: Sequence[str], env: Mapping[str, str] | None = None
) -> bool:
    """Whether the program that a command names can be found where :func:`run` would start it."""
    import shutil

    first = command[0]
    if version is not None and first in ("python", "python3"):
        return True
    if "/" in first:
        base = layout.root if version is None else layout.release(version)
        return os.access(base / first, os.X_OK)
    return shutil.which(first, path=environment(layout, version, env).get("PATH")) is not None
