"""Packs the versions of tradebot into reproducible tarballs.

    python examples/tradebot/pack.py [--out DIR]     write them (default: examples/tradebot/dist)
    python examples/tradebot/pack.py --check         are the packed ones those of the sources?

``app/`` is version 1.0.0; ``versions/<version>/`` holds the files that differ in a later one.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import re
import sys
import tarfile
import zlib
from pathlib import Path

HERE = Path(__file__).resolve().parent
VERSIONS = {
    "1.0.0": (),
    "1.1.0": ("1.1.0",),
    "1.2.0": ("1.1.0", "1.2.0"),
    "1.3.0": ("1.1.0", "1.3.0"),
    "1.4.0": ("1.1.0", "1.4.0"),
}
"""Each version, and the overlays that make it of ``app/``."""


def tree(version: str) -> dict[str, bytes]:
    """The files of a version, without what tools leave behind (caches, and names with a dot in front)."""
    files: dict[str, bytes] = {}
    for layer in (HERE / "app", *(HERE / "versions" / name for name in VERSIONS[version])):
        for path in sorted(layer.rglob("*")):
            name = path.relative_to(layer)
            if path.is_file() and not any(
                part.startswith(".") or part == "__pycache__" for part in name.parts
            ):
                files[name.as_posix()] = path.read_bytes()
    files["VERSION"] = f"{version}\n".encode()
    return files


def tarball(version: str) -> bytes:
    """The same bytes whenever it is made, by whom and where (another zlib may pack them otherwise)."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in sorted(tree(version).items()):
            info = tarfile.TarInfo(f"tradebot-{version}/{name}")
            info.size, info.mode, info.mtime = len(content), 0o644, 0
            archive.addfile(info, io.BytesIO(content))
    packed = io.BytesIO()
    # not gzip.compress(): the system that it names in the header depends on the version of Python
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=packed, mtime=0) as stream:
        stream.write(raw.getvalue())
    return packed.getvalue()


def notes(version: str) -> str:
    """The version's own section of its changelog."""
    text = tree(version)["CHANGELOG.md"].decode()
    match = re.search(rf"^## {re.escape(version)}\n+(.*?)(?=^## |\Z)", text, re.M | re.S)
    if match is None:
        raise SystemExit(f"error: {version} has no section in its CHANGELOG.md")
    return match[1].strip() + "\n"


def pack(out: Path) -> None:
    """Write every version and its notes."""
    out.mkdir(parents=True, exist_ok=True)
    for version in VERSIONS:
        (out / f"tradebot-{version}.tar.gz").write_bytes(tarball(version))
        (out / f"tradebot-{version}.md").write_text(notes(version), encoding="utf-8")
        print(out / f"tradebot-{version}.tar.gz")
    (out / "SHA256SUMS").write_text(sums(out), encoding="utf-8")


def sums(out: Path) -> str:
    """What `sha256sum *.tar.gz` prints; whoever deploys from the folder compares with it."""
    return "".join(
        f"{hashlib.sha256(it.read_bytes()).hexdigest()}  {it.name}\n" for it in sorted(out.glob("*.tar.gz"))
    )


def stale(out: Path) -> list[str]:
    """The names that are missing, differ from the sources, or belong to no version. Looks only.

    Tarballs are compared by their content, not their bytes: another zlib may pack the same files otherwise.
    """
    expected: dict[str, bool] = {}
    for version in VERSIONS:
        archive, text = out / f"tradebot-{version}.tar.gz", out / f"tradebot-{version}.md"
        inside = {f"tradebot-{version}/{name}": content for name, content in tree(version).items()}
        expected[archive.name] = archive.is_file() and _unpacked(archive.read_bytes()) == inside
        expected[text.name] = text.is_file() and text.read_bytes() == notes(version).encode()
    beside = out / "SHA256SUMS"
    expected[beside.name] = beside.is_file() and beside.read_text(encoding="utf-8") == sums(out)
    strangers = {path.name for path in out.glob("tradebot-*")} - expected.keys()
    return sorted({name for name, fits in expected.items() if not fits} | strangers)


def _unpacked(raw: bytes) -> dict[str, bytes] | None:
    """The files inside, with their whole names; None if it is no sound archive of regular files."""
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(raw), mode="r:gz") as archive:
            for info in archive:
                content = archive.extractfile(info) if info.isreg() else None
                if content is None:
                    return None
                files[info.name] = content.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error):
        return None
    return files


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=HERE / "dist")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 if they are not up to date"
    )
    given = parser.parse_args()
    if not given.check:
        pack(given.out)
        return 0
    if names := stale(given.out):
        print(f"not up to date: {', '.join(names)}; run examples/tradebot/pack.py", file=sys.stderr)
    return 1 if names else 0


if __name__ == "__main__":
    sys.exit(main())
