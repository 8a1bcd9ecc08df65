"""A folder of artifacts, for machines without a network.

``tradebot-1.4.0.tar.gz`` and ``v1.4.0.tar.zst`` are releases; the tag is the file's name without its ending and without the
name in front of the version. ``NAME.md`` beside it (without the ending) holds its notes; ``NAME.tar.gz.sha256`` or
``SHA256SUMS`` its sum: where there is such a file it must list the artifact, and the sum must fit.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
from datetime import UTC, datetime
from pathlib import Path

from updater import versions
from updater.config import SourceConfig
from updater.errors import ReleaseNotFound, SourceFailed, VerificationFailed
from updater.sources import Artifact, Published, PublishedAsset, checksums, nameable

ENDINGS = (".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".tar")


def tag_of(name: str) -> str | None:
    """The tag in a file's name; None if it is no artifact."""
    stem = next((name[: -len(ending)] for ending in ENDINGS if name.lower().endswith(ending)), None)
    if not stem or stem.startswith("."):
        return None
    if re.match(r"v?\d", stem, re.IGNORECASE):
        return stem
    match = re.fullmatch(r".+?[-_](v?\d.*)", stem, re.IGNORECASE)
    return match[1] if match else stem


class DirectorySource:
    """The releases in a folder."""

    def __init__(self, config: SourceConfig) -> None:
        assert config.path is not None
        self._folder, self._pattern = config.path, config.asset
        self.warnings: list[str] = []

    def describe(self) -> str:
        return str(self._folder)

    def releases(self) -> list[Published]:
        found: dict[str, Published] = {}
        for path in self._artifacts():
            tag = tag_of(path.name)
            assert tag is not None
            if tag in found:
                raise SourceFailed(
                    f"two artifacts in {self._folder} are release {tag}: {found[tag].assets[0].name} and {path.name}",
                    advice="remove one, or choose by [source] asset in updater.toml.",
                )
            found[tag] = self._published(path, tag)
        return nameable(found.values(), self.warnings)

    def _artifacts(self) -> list[Path]:
        try:
            paths = sorted(self._folder.iterdir())
        except OSError as failure:
            raise SourceFailed(
                f"the folder of artifacts cannot be read: {self._folder}: {failure.strerror}",
                advice="correct [source] path in updater.toml, or make the folder.",
            ) from failure
        pattern = self._pattern or "*"
        return [
            path
            for path in paths
            if tag_of(path.name) and fnmatch.fnmatch(path.name, pattern) and path.is_file()
        ]

    def _published(self, path: Path, tag: str) -> Published:
        seen = path.stat()
        stem = next(path.name[: -len(ending)] for ending in ENDINGS if path.name.lower().endswith(ending))
        notes = path.with_name(f"{stem}.md")
        text = notes.read_text("utf-8", "replace")[:100_000] if notes.is_file() else ""
        asset = PublishedAsset(path.name, str(path), seen.st_size)
        return Published(
            tag, stem, datetime.fromtimestamp(seen.st_mtime, UTC), prerelease=versions.is_prerelease(tag),
            notes=text, url=path.as_uri(), assets=(asset,),
        )  # fmt: skip

    def find(self, tag: str) -> Published:
        everything = self.releases()
        for it in everything:
            if it.tag == tag:
                return it
        for it in everything:
            if versions.agrees(it.tag, tag):
                return it
        known = ", ".join(it.tag for it in versions.order(everything)) or "none"
        raise ReleaseNotFound(
            f"{self._folder} has no release {tag} (there are: {known})",
            advice="put its artifact into the folder.",
        )

    def artifact(self, published: Published) -> Artifact:
        asset = published.assets[0]
        path = Path(asset.location)
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as failure:
            raise SourceFailed(f"{path} cannot be read: {failure.strerror}") from failure
        listed = self._listed(path)
        return Artifact(asset.name, asset.location, "file", asset.size, f"sha256:{digest}", checksum=listed)

    def _listed(self, path: Path) -> str | None:
        """The sum that lies beside an artifact. Where there are sums, one must be of this artifact (F39)."""
        names = (f"{path.name}.sha256", "SHA256SUMS", "sha256sums.txt")
        beside = [it for name in names if os.path.lexists(it := path.with_name(name))]
        for sums in beside:
            own = sums.name == names[0]
            found = checksums.find(_text(sums), path.name, bare=own)
            if found is not None:
                return found
            if own:
                break
        if not beside:
            return None
        first = beside[0].name
        write = ">" if first == names[0] else ">>"
        raise VerificationFailed(
            f"{first} holds no SHA-256 of {path.name}",
            state="Nothing was changed.",
            advice=f"if the file is as it was published: cd {self._folder} && sha256sum {path.name} {write} {first}; "
            f"without {first} nothing proves it, and it is taken as it is.",
        )

    def open(self, artifact: Artifact, *, offset: int = 0, validator: str | None = None) -> FileDownload:
        return FileDownload(Path(artifact.location), offset, validator)


def _text(sums: Path) -> str:
    """The text of a file of sums. One that is there and cannot be read is no missing one."""
    try:
        if not sums.is_file():  # reading a pipe would wait for ever
            raise SourceFailed(f"{sums} is not a regular file", advice="make it anew, or remove it.")
        return sums.read_text("utf-8", "replace")
    except OSError as failure:
        raise SourceFailed(f"{sums} cannot be read: {failure.strerror}") from failure


class FileDownload:
    """An artifact in a folder, opened. Nothing is kept of it in the cache: it is here already."""

    def __init__(self, path: Path, offset: int, validator: str | None) -> None:
        try:
            self._file = path.open("rb")
        except OSError as failure:
            raise SourceFailed(f"{path} cannot be read: {failure.strerror}") from failure
        self.total: int | None = path.stat().st_size
        self.validator: str | None = None
        self.offset = 0

    def read(self, count: int) -> bytes:
        return self._file.read(count)

    def close(self) -> None:
        self._file.close()
