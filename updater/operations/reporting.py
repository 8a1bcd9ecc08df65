"""``updater report``: what a maintainer would ask for, in one archive, with secrets blanked out.

It is wanted when things are broken, so each piece is collected by itself: what cannot be says why, and the rest is there. Databases,
settings and what else lies in ``shared/`` are never in it, only the names and sizes.
"""

from __future__ import annotations

import io
import json
import os
import platform
import shutil
import stat
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from updater import durable, records, redaction
from updater import version as own_version
from updater.deployment import journal
from updater.deployment.transaction import Request
from updater.errors import UpdaterError, UsageError
from updater.layout import Layout
from updater.operations import Root, backing, looking, planning, scheduling
from updater.processes import state
from updater.releases import service, store, verification
from updater.settings import secrets

Json = dict[str, Any]

PIECE = 1024**2
"""Bytes of one piece at most; of a log the end."""

ALL = 20 * 1024**2
"""Bytes of all pieces together, before compression."""

JOURNALS = 10
NAMES = 5_000
"""Ended deployments, and names of files, at most."""

NOTICE = """A diagnostic report of updater {version}, made {when}.

What it holds: the names and sizes of files in the root, what commands say of it, updater.toml, journals, and the ends of logs.
What it does not: databases, backups, and the application's settings.

Secrets are blanked out as ***: values of variables and keys whose names say that they are secret (token, password, key ...), wherever
they appear, and what has the form of one. Look through it before you give it to anybody: no program knows all of your secrets.
"""


@dataclass
class _Pieces:
    redactor: redaction.Redactor
    left: int = ALL
    found: dict[str, bytes] = field(default_factory=dict)

    def add(self, name: str, make: Callable[[], object]) -> None:
        """Collect one piece; texts go in as they are, anything else as JSON."""
        try:
            made = make()
        except (UpdaterError, OSError, ValueError, KeyError, TypeError, RecursionError) as failure:
            made = f"could not be collected: {type(failure).__name__}: {failure}\n"
        if isinstance(made, str):
            text = self.redactor.text(made)
        else:
            text = json.dumps(self.redactor.data(made), indent=1, ensure_ascii=False, default=str) + "\n"
        content = durable.encodable(text).encode()[-min(PIECE, self.left) :] if self.left > 0 else b""
        self.left -= len(content)
        self.found[name] = content


def report(root: Root, output: Path | None = None) -> Json:
    """Make the archive: ``output``, by default ``updater-report-YYYYMMDD_HHMMSS.tar.gz`` here. Reads only, and takes no lock.

    Raises:
        UsageError: there is something of that name, or it cannot be written.
    """
    when = records.now()
    name = f"updater-report-{when:%Y%m%d_%H%M%S}"
    place = (output or Path(f"{name}.tar.gz")).absolute()
    if os.path.lexists(place):
        raise UsageError(f"{place} is there already", advice="name another file: --output FILE")
    pieces = _Pieces(redaction.Redactor(secrets.known(root.layout, root.config)))
    pieces.add("README.txt", lambda: NOTICE.format(version=own_version(), when=records.stamp(when)))
    for piece, make in _everything(root):
        pieces.add(piece, make)
    try:
        durable.write(place, _archive(name, pieces.found, when.timestamp()), mode=0o600)
    except OSError as failure:
        raise UsageError(
            f"{place} cannot be written: {failure.strerror}", advice="name another place: --output FILE"
        ) from failure
    return {
        "file": str(place),
        "size": place.stat().st_size,
        "holds": {piece: len(content) for piece, content in pieces.found.items()},
    }


def _everything(root: Root) -> Iterator[tuple[str, Callable[[], object]]]:
    layout = root.layout
    yield "machine.json", lambda: _machine(layout)
    yield "status.json", lambda: looking.status(layout)
    yield "preflight.json", lambda: planning.preflight(root, Request("deploy"), offline=True)
    yield "releases.json", lambda: looking.releases(root)
    yield "verify.json", lambda: _verified(layout)
    yield "history.json", lambda: looking.history(root, limit=100)
    yield "progress.json", lambda: looking.progress(root.layout)
    yield "check.json", lambda: scheduling.remembered(layout)
    yield "backups.json", lambda: backing.listing(root)
    yield "processes.json", lambda: [it._asdict() for it in state.status(layout, root.config.processes)]
    yield "files.txt", lambda: "".join(f"{line}\n" for line in _names(layout))
    yield "updater.toml", lambda: _text(layout.config)
    for path in [*journal.unfinished(layout), *journal.closed(layout)[-JOURNALS:]]:
        yield f"journal/{path.name}", lambda path=path: _text(path)  # type: ignore[misc]
    for path in sorted(layout.configurations.glob("*.toml")):
        yield f"configurations/{path.name}", lambda path=path: _text(path)  # type: ignore[misc]
    logs = [
        layout.update_log,
        layout.errors_log,
        *map(layout.process_log, root.config.processes),
        layout.worker_log,
    ]
    for path in logs:
        yield f"logs/{path.name}", lambda path=path: _end(path)  # type: ignore[misc]


def _machine(layout: Layout) -> Json:
    import psutil

    usage = {}
    for place in (layout.root, layout.releases, layout.shared, layout.backups, layout.own):
        if place.is_dir():
            found = os.statvfs(place)
            usage[str(place)] = {
                "free": found.f_bavail * found.f_frsize, "size": found.f_blocks * found.f_frsize,
                "inodes_free": found.f_favail, "inodes": found.f_files,
            }  # fmt: skip
    memory = psutil.virtual_memory()
    return {
        "updater": own_version(), "python": sys.version, "executable": sys.executable, "system": platform.platform(),
        "machine": platform.machine(), "processors": os.cpu_count(), "user": os.geteuid(), "root_owner": layout.root.stat().st_uid,
        "memory": {"total": memory.total, "available": memory.available}, "booted": records.stamp(_booted()),
        "filesystems": usage, "tools": {tool: _tool(tool) for tool in ("uv", "git", "tar", "zstd", "sqlite3", "sh")},
    }  # fmt: skip


def _booted() -> Any:
    from datetime import UTC, datetime

    import psutil

    return datetime.fromtimestamp(psutil.boot_time(), UTC)


def _tool(name: str) -> str | None:
    place = shutil.which(name)
    if place is None or name == "sh":  # it has no --version that all shells know
        return place
    try:
        done = subprocess.run(
            [place, "--version"],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError) as failure:
        return f"{place}: {failure}"
    return f"{place}: {(done.stdout or done.stderr).strip().partition(chr(10))[0]}"


def _verified(layout: Layout) -> object:
    here = service.in_service(layout).release
    return verification.report(layout, store.find(layout, here)) if here else None


def _names(layout: Layout) -> Iterator[str]:
    """Every path of the root with its mode, owner, size and date; of releases, environments and big directories the top only."""
    count = 0
    for directory, below, names in os.walk(layout.root):
        depth = len(Path(directory).relative_to(layout.root).parts)
        for name in sorted([*below, *names]):
            path = Path(directory, name)
            count += 1
            if count > NAMES:
                yield f"… more than {NAMES:,} names"
                return
            yield _named(layout, path)
        below[:] = sorted(below) if depth < (1 if Path(directory).name == "releases" else 3) else []


def _named(layout: Layout, path: Path) -> str:
    shown = durable.encodable(str(path.relative_to(layout.root)))
    try:
        it = path.lstat()
        to = f" -> {os.readlink(path)}" if stat.S_ISLNK(it.st_mode) else ""
        changed = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(it.st_mtime))
        return f"{stat.filemode(it.st_mode)} {it.st_uid}:{it.st_gid} {it.st_size:>12} {changed} {shown}{to}"
    except OSError as failure:
        return f"{shown}: {failure.strerror}"


def _text(path: Path, limit: int = PIECE) -> str:
    return durable.read(path, limit).decode("utf-8", "replace")


def _end(path: Path) -> str:
    """The end of a log, from the beginning of a line."""
    with looking.open_log(path) as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - PIECE // 2))
        text = file.read(PIECE // 2).decode("utf-8", "replace")
    return text if size <= PIECE // 2 else text.partition("\n")[2]


def _archive(top: str, pieces: dict[str, bytes], when: float) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as archive:
        for name, content in pieces.items():
            info = tarfile.TarInfo(f"{top}/{name}")
            info.size, info.mode, info.mtime = len(content), 0o600, int(when)
            archive.addfile(info, io.BytesIO(content))
    return raw.getvalue()
