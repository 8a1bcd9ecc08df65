"""The disk space of five releases with their environments, against five plain copies.

    python -m bench.disk [--dir DIR]

Five published versions of Django, each unpacked with the ones before it as donors, each with a compiled environment of
datasette's dependencies; the requirements change once.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from updater import environments
from updater.artifacts.unpack import Donor, unpack
from updater.config import EnvironmentConfig

VERSIONS = ("5.2.4", "5.2.5", "5.2.6", "5.2.7", "5.2.8")
REQUIREMENTS = ("datasette==0.65.1\n", "datasette==0.65.1\nhumanize==4.11.0\n")


def used(places: list[Path]) -> int:
    """Bytes on the disk, each inode once."""
    seen: set[int] = set()
    total = 0
    for place in places:
        for directory, folders, files in os.walk(place):
            for name in (*folders, *files, "."):
                found = os.lstat(os.path.join(directory, name))
                if found.st_ino not in seen:
                    seen.add(found.st_ino)
                    total += found.st_blocks * 512
    return total


def install(
    file: Path, releases: Path, donors: list[tuple[Path, Donor]], requirements: str
) -> tuple[Path, Donor]:
    release = releases / file.name.removesuffix(".tar.gz")
    with file.open("rb") as stream:
        found = unpack(
            stream, releases / f".tmp-{release.name}", donors=[donor for _, donor in donors[::-1][:2]]
        )
    found.tree.rename(release)
    shutil.rmtree(releases / f".tmp-{release.name}", ignore_errors=True)
    for name in ("pyproject.toml", "requirements.txt"):
        (release / name).unlink(missing_ok=True)
    (release / "requirements.txt").write_text(requirements)
    record = environments.build(
        release, EnvironmentConfig(python=sys.executable), donors=[path for path, _ in donors[::-1]]
    )
    (release / ".release").mkdir(exist_ok=True)
    (release / ".release" / "release.json").write_text(json.dumps({"environment": record.as_json()}))
    return release, Donor.of(release, found.manifest)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dir", type=Path, help="where to work (default: the temporary directory)")
    given = parser.parse_args()
    place = Path(tempfile.mkdtemp(dir=given.dir))
    try:
        done: list[tuple[Path, Donor]] = []
        for number, version in enumerate(VERSIONS):
            subprocess.run(
                [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", f"django=={version}", "--dest", place],
                check=True, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            file = next(place.glob(f"*{version}.tar.gz"))
            done.append(install(file, place, done, REQUIREMENTS[number // 3]))
        releases = [path for path, _ in done]
        shared, alone = used(releases), sum(used([path]) for path in releases)
        one_more = shared - used(releases[:-1])
        print("| five releases with environments | MB | share |\n| --- | ---: | ---: |")
        print(f"| plain copies | {alone / 1e6:.0f} | 1 |")
        print(f"| updater | {shared / 1e6:.0f} | {shared / alone:.2f} |")
        print(f"| one more release | {one_more / 1e6:.0f} | {one_more / (alone / 5):.2f} of one |")
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
