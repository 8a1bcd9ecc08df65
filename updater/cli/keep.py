"""verify, pin, unpin, mark-bad, prune, hold, release-hold."""

from __future__ import annotations

import click

from updater import operations
from updater.cli import output
from updater.cli.deploy import user
from updater.cli.output import Face
from updater.operations import keeping


@click.command()
@click.argument("version", required=False)
@click.option("--all", "everything", is_flag=True, help="Every installed release.")
@click.pass_context
def verify(ctx: click.Context, version: str | None, everything: bool) -> None:
    """Re-hash VERSION (else the release in service) against its address; look at its environment."""
    face: Face = ctx.obj
    reports = keeping.verify(face.open(), version, everything=everything)
    sound = all(report["sound"] for report in reports)

    def text() -> None:
        for report in reports:
            verdict = output.good("sound") if report["sound"] else output.bad("changed")
            known = f" ({report['files']} files, {report['digest']}; {report['proof']})"
            face.say(f"{report['version']}: {verdict}{known if report['digest'] else ''}")
            for it in report["differences"]:
                face.say(output.bad(f"  {it['what']}: {it['path']}"))
            if report["differences"]:
                face.say(f"  Next: {report['advice']}")
            if report["environment"]:
                face.say(output.bad(f"  environment: {report['environment']}"))
                face.say(f"  Next: updater fetch --rebuild {report['version']}")

    face.emit(reports, text)
    ctx.exit(0 if sound else 7)


@click.command()
@click.argument("version")
@click.option("--reason", default="", help="Why.")
@click.pass_obj
def pin(face: Face, version: str, reason: str) -> None:
    """Never prune release VERSION."""
    found = keeping.pin(face.open(), version, reason)
    face.emit({"pinned": found}, lambda: face.say(f"{found} is pinned"))


@click.command()
@click.argument("version")
@click.pass_obj
def unpin(face: Face, version: str) -> None:
    """Let release VERSION be pruned again."""
    found = keeping.unpin(face.open(), version)
    face.emit({"unpinned": found}, lambda: face.say(f"{found} is not pinned any more"))


@click.command("mark-bad")
@click.argument("version")
@click.option("--reason", default="", help="Why.")
@click.pass_obj
def mark_bad(face: Face, version: str, reason: str) -> None:
    """Never take VERSION by itself again, nor roll back to it."""
    found = keeping.mark_bad(face.open(), version, reason)
    face.emit(
        {"bad": found},
        lambda: face.say(f"{found} is marked bad; `updater activate {found} --force` still can"),
    )


@click.command()
@click.option("--keep", type=click.IntRange(1), help="How many good releases stay; else releases.keep.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def prune(face: Face, keep: int | None, dry_run: bool, yes: bool) -> None:
    """Remove old releases; never the current, the previous good, a pinned one or one in use."""
    root = operations.open_root(face.root)
    doomed = keeping.prunable(root, keep)
    if dry_run:
        face.emit(
            {"would_remove": doomed}, lambda: face.say(f"would remove: {', '.join(doomed) or 'nothing'}")
        )
        return
    if doomed:
        output.confirm(f"Remove {', '.join(doomed)}?", yes=yes, face=face)
    removed = keeping.prune(root, keep)
    face.emit({"removed": removed}, lambda: face.say(f"removed {', '.join(removed) or 'nothing'}"))


@click.command()
@click.option("--reason", default="", help="Why; told to everybody who wants to deploy.")
@click.pass_obj
def hold(face: Face, reason: str) -> None:
    """Let no other release go into service until `release-hold`; going back, restoring and restarting still work."""
    found = keeping.hold(face.open(), reason, user())

    def text() -> None:
        if found["before"]:
            face.say("this takes the place of an earlier hold, which is in shared/logs/update.log")
        if found["at_work"]:
            face.warn(f"{found['at_work']} is at work and goes on; `updater cancel` stops it")
        face.say("updates are held; lift it with: updater release-hold")

    face.emit(found, text)


@click.command("release-hold")
@click.pass_obj
def release_hold(face: Face) -> None:
    """Let releases go into service again."""
    found = keeping.release_hold(face.open(), user())
    face.emit(found, lambda: face.say("the hold is lifted" if found["released"] else "nobody holds updates"))
