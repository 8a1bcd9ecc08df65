"""Packs the versions of tradebot into reproducible tarballs.

    python examples/tradebot/pack.py [--out DIR]     write them (default: examples/tradebot/dist)
    python examples/tradebot/pack.py --check         are the packed ones those of the sources?

``app/`` is version 1.0.0; ``versions/<version>/`` holds the files that differ in a later one.
"""

from __future__ import annotations

import argparse
import gzip
import io
import re
import sys
import tarfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
VERSIONS = {
    "1.0.0": (),
    "1.1.0": ("1.1.0",),
    "1.2.0": ("1.1.0", "1.2.0"),
    "1.3.0": ("1.1.0", "1.3.0"),
}
"""Each version, and the overlays that make it of ``app/``."""


def tree(version: str) -> dict[str, bytes]:
    """The files of a version."""
    files: dict[str, bytes] = {}
    for layer in (HERE / "app", *(HERE / "versions" / name for name in VERSIONS[version])):
        for path in sorted(layer.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and ".pytest_cache" not in path.parts:
                files[path.relative_to(layer).as_posix()] = path.read_bytes()
    files["VERSION"] = f"{version}\n".encode()
    return files


def tarball(version: str) -> bytes:
    """The same bytes wherever and whenever it is made."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in sorted(tree(version).items()):
            info = tarfile.TarInfo(f"tradebot-{version}/{name}")
            info.size, info.mode, info.mtime = len(content), 0o644, 1_767_225_600
            archive.addfile(info, io.BytesIO(content))
    return gzip.compress(raw.getvalue(), 9, mtime=0)


def notes(version: str) -> str:
    """The version's own section of its changelog."""
    text = tree(version)["CHANGELOG.md"].decode()
    match = re.search(rf"^## {re.escape(version)}\n+(.*?)(?=^## |\Z)", text, re.M | re.S)
    assert match is not None
    return match[1].strip() + "\n"


def unpacked(raw: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        return {info.name.partition("/")[2]: archive.extractfile(info).read() for info in archive}  # type: ignore[union-attr]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "dist")
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    stale = []
    given.out.mkdir(parents=True, exist_ok=True)
    for version in VERSIONS:
        path = given.out / f"tradebot-{version}.tar.gz"
        if given.check:  # by content: another zlib may pack the same files into other bytes
            fits = path.is_file() and unpacked(path.read_bytes()) == tree(version)
            stale += [] if fits and path.with_name(f"tradebot-{version}.md").read_text() == notes(version) else [path.name]
            continue
        path.write_bytes(tarball(version))
        path.with_name(f"tradebot-{version}.md").write_text(notes(version), encoding="utf-8")
        print(path)
    if stale:
        print(f"not up to date: {', '.join(stale)}; run examples/tradebot/pack.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
