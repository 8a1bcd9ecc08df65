"""Fetch, verify, unpack and hash an artifact over loopback HTTP, against `tar xzf` of the local file.

    python -m bench.fetch [--rounds 5] [--dir DIR] [--file ARTIFACT ...]

Without --file it uses the source archives of Django (7,000 files) and Ansible (48,000) from the package index. Use a journaled
filesystem: one without a journal creates files slowly right after others were removed, and flattens every difference.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from bench.compare import Contender, race, table

SDISTS = ("django==5.2.8", "ansible==11.12.0")


def fetch(url: str, into: Path) -> None:
    """The measured work, in a process of its own."""
    from updater.artifacts.unpack import unpack

    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port)
    connection.request("GET", parts.path)
    found = unpack(connection.getresponse(), into)
    assert found.manifest.digest and found.manifest.tree_id and found.artifact_sha256


def with_tarfile(file: Path, into: Path) -> None:
    import tarfile

    with tarfile.open(file) as archive:
        archive.extractall(into, filter="data")


@contextlib.contextmanager
def serve(directory: Path) -> Iterator[str]:
    """A plain HTTP server on loopback, in a process of its own; yields its address."""
    command = [
        sys.executable,
        "-u",
        "-m",
        "http.server",
        "0",
        "--bind",
        "127.0.0.1",
        "--directory",
        directory,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        match = re.search(r"http://\S+?(?=/? *\))", process.stdout.readline())
        assert match is not None
        try:
            yield match[0]
        finally:
            process.terminate()


def download(place: Path) -> list[Path]:
    """The source archives, by the ordinary package client."""
    for name in SDISTS:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", name, "--dest", place],
            check=True, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    return sorted(place.glob("*.tar.gz"))


def measure(file: Path, url: str, work: Path, rounds: int) -> None:
    number = iter(range(10**6))
    into: dict[str, Path] = {}

    def fresh(name: str) -> None:
        """A new place each time; what earlier rounds left is removed at the end, not between."""
        into[name] = work / f"{file.name}-{name}-{next(number)}"

    def contender(name: str, make: list[str], *, own: bool) -> Contender:
        it = Contender(name, [])

        def before() -> None:
            os.sync()  # what the round before wrote must not be written back during this one
            fresh(name.split()[0])
            target = into[name.split()[0]]
            if not own:
                target.mkdir()
            it.command = [word.replace("@INTO@", str(target)) for word in make]

        it.before = before
        return it

    me = [sys.executable, "-m", "bench.fetch"]
    peer = contender("tar xzf", ["tar", "xzf", str(file), "-C", "@INTO@"], own=False)
    updater = contender("updater (HTTP, all verified)", [*me, "--work", url, "@INTO@"], own=True)
    library = contender("tarfile filter='data'", [*me, "--tarfile", str(file), "@INTO@"], own=False)
    contenders = [peer, updater, library]
    race(contenders, rounds=rounds)
    table(f"{file.name}, {file.stat().st_size / 1e6:.0f} MB", contenders, peer)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", type=Path, help="where to work (default: the temporary directory)")
    parser.add_argument("--file", type=Path, action="append", help="an artifact; may be given several times")
    parser.add_argument("--work", nargs=2, metavar=("URL", "INTO"), help=argparse.SUPPRESS)
    parser.add_argument("--tarfile", nargs=2, metavar=("FILE", "INTO"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        fetch(given.work[0], Path(given.work[1]))
        return
    if given.tarfile:
        with_tarfile(Path(given.tarfile[0]), Path(given.tarfile[1]))
        return
    place = Path(tempfile.mkdtemp(dir=given.dir))
    try:
        for file in given.file or download(place):
            with serve(file.resolve().parent) as address:
                measure(file, f"{address}/{file.name}", place, given.rounds)
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
