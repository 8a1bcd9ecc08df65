"""Make a root, and ask whether there is an update."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from updater import configfile, durable, emergency, records, template
from updater.deployment import housekeeping
from updater.errors import ConfigError, UsageError
from updater.layout import Layout
from updater.operations import Root
from updater.releases import marks, service, store

Json = dict[str, Any]


def init(directory: Path, *, name: str | None, repository: str | None, artifacts: Path | None) -> Json:
    """Make a root, or make an existing one whole. A file that is there is never overwritten.

    The emergency scripts are brought to those of this updater. Returns ``root``, what was ``made`` and ``refreshed``, and ``warnings``.

    Raises:
        UsageError: neither or both of ``repository`` and ``artifacts`` for a new root, one that cannot be, or something
            else stands where a directory or the configuration belongs.
    """
    layout = Layout(Path(os.path.realpath(directory)))
    places = (
        layout.releases, layout.shared / "config", layout.shared / "data", layout.logs, layout.backups,
        layout.scripts, layout.own, layout.cache, layout.run, layout.marks, layout.journal / "closed",
    )  # fmt: skip
    _refuse_what_is_in_the_way(layout, places)
    made: list[str] = []
    text = None
    if not layout.config.exists():
        text = _configuration(layout, name, repository, artifacts)
    for place in places:
        if not place.is_dir():
            durable.make_directory(place)
            made.append(f"{place.relative_to(layout.root)}/")
    if text is not None:
        durable.write(layout.config, text)
        made.append("updater.toml")
    if not os.path.lexists(layout.history):
        durable.write(layout.history, records.format_history([]))
    scripts = emergency.install(layout)
    housekeeping.put_ballast(layout)
    return {
        "root": str(layout.root), "made": made + scripts.made,
        "refreshed": scripts.refreshed, "warnings": scripts.warnings,
    }  # fmt: skip


def _refuse_what_is_in_the_way(layout: Layout, places: Sequence[Path]) -> None:
    every = {above: None for it in (layout.root, *places) for above in (*reversed(it.parents), it)}
    for place in every:
        if os.path.lexists(place) and not place.is_dir():
            what = "a link to what is not there" if place.is_symlink() else "not a directory"
            raise UsageError(
                f"{place} is {what}", state="Nothing was changed.", advice="look what it is and move it away."
            )
    if os.path.lexists(layout.config) and not layout.config.is_file():
        raise UsageError(
            f"{layout.config} is there and cannot be read as a file",
            state="Nothing was changed.",
            advice="look what it is (a link into a volume that is not mounted?), put it right, and run the command again.",
        )


def _configuration(layout: Layout, name: str | None, repository: str | None, artifacts: Path | None) -> str:
    if (repository is None) == (artifacts is None):
        raise UsageError(
            "where do releases come from?",
            state="Nothing was changed.",
            advice="give --repo OWNER/NAME for GitHub, or --directory DIR for a local folder of artifacts.",
        )
    folder = None
    if artifacts is not None:
        folder = (
            os.path.relpath(artifacts.absolute(), layout.root)
            if artifacts.is_relative_to(layout.root)
            else str(artifacts.absolute())
        )
    known = repository.rpartition("/")[2] if repository else layout.root.name
    fallback = re.sub(r"[^A-Za-z0-9_.-]+", "-", known).strip("-_.")[:64] or "app"
    text = template.render(name=name or fallback, repository=repository, directory=folder)
    try:
        configfile.parse(text, layout.config)  # a wrong argument fails before anything is made
    except ConfigError as failure:
        raise UsageError(
            "the arguments make no configuration",
            details=failure.details,
            state="Nothing was changed.",
            advice="correct what the details name: --repo OWNER/NAME, --directory DIR or --name NAME.",
        ) from None
    return text


def check(root: Root) -> Json:
    """Is there a newer release? Cheap: conditional requests cost no quota.

    Raises:
        SourceFailed: the source cannot be reached or refuses.
    """
    from updater import sources, versions

    layout = root.layout
    source = sources.open_source(root.config.source, cache=layout.cache)
    published = source.releases()
    here = service.in_service(layout).release
    bad = marks.read(layout).bad
    newest = versions.newest(published, root.config.source.channel)
    candidates = [it for it in published if versions.release_name(it.tag) not in bad]
    usable = versions.newest(candidates, root.config.source.channel)
    record = store.read(layout.release(here)) if here else None
    tag_here = record.record.tag if record else here
    found: Json = {
        "in_service": here,
        "newest": newest and newest.tag,
        "update": None,
        "skipped": None,
        "source": source.describe(),
        "warnings": source.warnings,
    }
    if newest and usable is not newest:
        found["skipped"] = {"tag": newest.tag, "reason": bad.get(versions.release_name(newest.tag), "")}
    if usable and (tag_here is None or versions.is_newer(usable, tag_here, published)):
        found["update"] = {
            "tag": usable.tag,
            "name": usable.name,
            "published_at": usable.published_at and records.stamp(usable.published_at),
            "notes": usable.notes,
            "url": usable.url,
        }
    return found
