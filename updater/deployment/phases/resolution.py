"""Which release? Asks the source, or the records of what is installed; writes nothing but the source's own cache."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from updater import versions
from updater.config import Config
from updater.deployment.transaction import Request
from updater.errors import ReleaseNotFound, TagMoved, UsageError
from updater.layout import Layout
from updater.preflight.plan import Plan
from updater.processes import state
from updater.releases import marks, service, store

if TYPE_CHECKING:
    from updater.sources import Published, Source


@dataclass
class Resolved:
    """The answer. ``nothing`` says why there is nothing to do; ``artifact`` and ``port`` are set when it must be fetched."""

    version: str
    tag: str | None
    installed: bool
    source: str
    digest: str | None = None
    nothing: str | None = None
    artifact: Any = None
    published: Any = None
    port: Any = None
    warnings: list[str] = field(default_factory=list)

    @property
    def artifact_name(self) -> str:
        return self.artifact.name if self.artifact else "nothing"

    def plan(self, request: Request) -> Plan:
        size = self.artifact.size if self.artifact else None
        return Plan(
            self.version, self.installed, size, request.force, request.kind, request.rebuild,
            forced=request.command("--force"), keep_config=request.keep_config,
        )  # fmt: skip


def resolve(layout: Layout, config: Config, request: Request, *, remember: bool = True) -> Resolved:
    """Find the release that a request means. ``remember``: the source may write its cache.

    Raises:
        UsageError: no such installed release, or no earlier good one.
        SourceFailed: the source cannot be reached or has no such release.
        TagMoved: the tag names other content than the release installed under it.
        ReleaseChanged: what is installed under it is damaged, or no longer as it was and only wanted installed.
    """
    if request.kind in ("activate", "rollback"):
        return _installed(layout, config, request)
    if request.kind == "fetch" and request.rebuild:
        release = store.find(layout, str(request.wanted))
        return Resolved(
            release.version, release.record.tag, True, release.record.source, release.record.digest
        )
    return _published(layout, config, request, remember)


def _installed(layout: Layout, config: Config, request: Request) -> Resolved:
    here = service.in_service(layout).release
    if request.wanted is not None:
        release = store.find(layout, request.wanted)
    else:
        names = [release.version for release in store.installed(layout)]
        target = marks.rollback_target(marks.read(layout), here, names)
        if target is None:
            raise UsageError(
                "there is no other good release to go back to",
                details=[f"installed: {', '.join(names) or 'none'}"],
                state=f"{here or 'nothing'} is in service, untouched.",
                advice="name one: updater rollback --to VERSION",
            )
        release = store.find(layout, target)
    found = Resolved(release.version, release.record.tag, True, "releases/", release.record.digest)
    if (
        release.version == here == service.named_by(layout, layout.good)
        and not request.force
        and not _not_running(layout, config, here)
    ):
        found.nothing = f"{here} is in service already; nothing to do (its processes: updater restart)"
    return found


def _not_running(layout: Layout, config: Config, version: str) -> list[str]:
    """The configured processes that do not run from the release, whatever the link says."""
    running = {one.name for one in state.running(layout) if one.release == version}
    return [name for name in config.processes if name not in running]


def _published(layout: Layout, config: Config, request: Request, remember: bool) -> Resolved:
    from updater import sources

    port = sources.open_source(config.source, cache=layout.cache if remember else None)
    found = _chosen(layout, config, request, port)
    found.warnings = port.warnings
    return found


def _chosen(layout: Layout, config: Config, request: Request, port: Source) -> Resolved:
    here = service.in_service(layout).release
    skipped = ""
    published: Published | None
    if request.wanted is not None:
        versions.release_name(request.wanted)  # what can never be installed need not be asked for
        published = port.find(request.wanted)
    else:
        bad = {} if request.force else marks.read(layout).bad
        everything = port.releases()
        newest = versions.newest(everything, config.source.channel)
        published = versions.newest(
            [it for it in everything if versions.release_name(it.tag) not in bad], config.source.channel
        )
        if newest is None:
            raise ReleaseNotFound(
                f"{port.describe()} has no release in the channel {config.source.channel}",
                details=port.warnings,
                state=f"{here or 'nothing'} is in service, untouched.",
                advice="publish one, or look at [source] channel in updater.toml.",
            )
        if published is not newest:
            reason = bad.get(versions.release_name(newest.tag), "")
            skipped = f" ({newest.tag} is newer but marked bad{f': {reason}' if reason else ''})"
        if published is None or _is_older(layout, published, here, everything):
            return Resolved(
                here or newest.tag,
                None,
                True,
                port.describe(),
                nothing=f"nothing to do: {here} is in service{skipped}",
            )
    name = versions.release_name(published.tag)
    artifact = port.artifact(published)
    found = Resolved(
        name, published.tag, False, port.describe(), artifact=artifact, published=published, port=port
    )
    _compare_with_installed(layout, request, found)
    if found.installed and request.kind == "fetch":
        if not request.force:
            _check_unchanged(layout, found.version)
        found.nothing = f"{found.version} is installed already, with the same content"
    if (
        found.installed
        and found.version == here == service.named_by(layout, layout.good)
        and not request.force
    ):
        idle = _not_running(layout, config, here)
        if not idle or request.wanted is None:  # what somebody has stopped, a scheduled deploy does not start
            hint = f"; not running from it: {', '.join(idle)} (updater restart)" if idle else ""
            found.nothing = found.nothing or f"{here} is in service already{skipped}; nothing to do{hint}"
    return found


def _check_unchanged(layout: Layout, version: str) -> None:
    """What is said to be there already must be so."""
    from updater.releases import verification

    verification.check_unchanged(layout, store.find(layout, version))


def _is_older(layout: Layout, published: Any, here: str | None, everything: list[Any]) -> bool:
    """Without a tag nobody wants to go back: a newest release that is older than the present one is no update."""
    release = store.read(layout.release(here)) if here else None
    tag = release.record.tag if release else here
    return tag is not None and published.tag != tag and not versions.is_newer(published, tag, everything)


def _compare_with_installed(layout: Layout, request: Request, found: Resolved) -> None:
    """Equal content: nothing to fetch. The same tag with other content: an alarm, not an update."""
    artifact = found.artifact
    for release in store.installed(layout):
        if release.record.tag == found.tag and _same(release, artifact):
            found.version, found.installed, found.digest = release.version, True, release.record.digest
            return
    taken = layout.release(found.version)
    occupied = store.read(taken)
    if taken in store.damaged(layout):
        raise store.unreadable(found.version)
    if occupied is None:
        _refuse_other_case(layout, found.version)
        return
    if occupied.record.tag != found.tag:
        raise UsageError(
            f"the tag {found.tag} would be installed as {found.version}, which is the place of the tag {occupied.record.tag}",
            state="Nothing was changed.",
            advice="publish it under another tag.",
        )
    if not (artifact.digest or artifact.tree):
        return
    if not request.replace:
        raise moved(layout, request, found.tag, occupied, artifact.digest or artifact.tree)
    found.version = beside(found.version, artifact.digest or artifact.tree)


def beside(version: str, content: str) -> str:
    """The name under which a tag's new content is installed beside its old one; it shows what it is."""
    return f"{version}+{content.removeprefix('sha256:')[:8]}"


def _same(release: store.Release, artifact: Any) -> bool:
    """Whether an installed release came from this content, as far as the source tells before the download. One commit has
    one content, also where ``.gitattributes`` makes an archive that is not its tree."""
    if artifact.digest:
        return bool(release.record.artifact.get("sha256") == artifact.digest.removeprefix("sha256:"))
    if artifact.tree:
        same = artifact.commit is not None and release.record.commit == artifact.commit
        return bool(same or release.record.tree == artifact.tree)
    return False  # the source tells nothing: only the content itself can, after it was fetched


def _refuse_other_case(layout: Layout, version: str) -> None:
    for release in store.installed(layout):
        if release.version != version and release.version.casefold() == version.casefold():
            raise UsageError(
                f"{version} and the installed {release.version} differ only in case; some filesystems take them for one",
                state="Nothing was changed.",
                advice="publish it under another tag.",
            )


def moved(layout: Layout, request: Request, tag: str | None, occupied: store.Release, now: str) -> TagMoved:
    """The alarm: a published tag has changed."""
    record = occupied.record
    known = {record.digest, record.tree, f"sha256:{record.artifact.get('sha256')}"}
    return TagMoved(
        f"the tag {tag} now has other content than the release that is installed under it",
        details=[
            f"installed: {', '.join(sorted(known))}",
            f"published: {now}",
            "a published tag must not change: somebody moved it, or replaced its file",
        ],
        state=f"Nothing was changed; {service.in_service(layout).version or 'nothing'} is in service.",
        advice=f"ask the publisher; if it is meant to be so: {replace(request, wanted=tag).command('--replace')}",
    )
