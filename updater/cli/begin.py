"""init, check, preflight."""

from __future__ import annotations

from pathlib import Path

import click

from updater import operations
from updater.cli import output
from updater.cli.output import Face
from updater.deployment.transaction import Request


@click.command()
@click.argument("directory", default=".", type=click.Path(path_type=Path))
@click.option("--repo", "repository", metavar="OWNER/NAME", help="The repository on GitHub.")
@click.option(
    "--directory",
    "artifacts",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="A local folder of artifacts instead.",
)
@click.option("--name", help="What people call the application; else the repository's name.")
@click.pass_obj
def init(
    face: Face, directory: Path, repository: str | None, artifacts: Path | None, name: str | None
) -> None:
    """Make DIRECTORY a root: layout, a commented updater.toml and the emergency scripts. What is there is kept."""
    from updater.operations import beginning

    found = beginning.init(directory, name=name, repository=repository, artifacts=artifacts)

    def text() -> None:
        for made in found["made"]:
            face.say(f"  made {made}")
        for refreshed in found["refreshed"]:
            face.say(f"  refreshed {refreshed}")
        for line in found["warnings"]:
            face.warn(line)
        new = found["made"] or found["refreshed"]
        face.say(
            output.good(f"{found['root']} is a root") + ("" if new else "; everything was there already")
        )
        face.say(f"Next: describe the processes in {found['root']}/updater.toml, then: updater preflight")

    face.emit(found, text)


@click.command()
@click.pass_obj
def check(face: Face) -> None:
    """Is there a newer release? Cheap enough for every few minutes."""
    from updater.operations import scheduling

    found = scheduling.ask(operations.open_root(face.root))

    def text() -> None:
        update = found["update"]
        for line in found["warnings"]:
            face.say(output.warning(line))
        if found["skipped"]:
            face.say(
                output.warning(
                    f"{found['skipped']['tag']} is newer but marked bad: {found['skipped']['reason']}"
                )
            )
        if update is None:
            newest = f"; the newest of {found['source']} is {found['newest']}" if found["newest"] else ""
            face.say(f"no update: {found['in_service'] or 'nothing'} is in service{newest}")
            return
        face.say(
            output.bold(f"{update['tag']} is available")
            + f" (in service: {found['in_service'] or 'nothing'})"
        )
        if update["published_at"]:
            face.say(f"published {output.moment(update['published_at'])}")
        if update["notes"]:
            face.say()
            face.say(update["notes"].strip())
            face.say()
        face.say(f"Next: updater deploy {update['tag']}")

    face.emit(found, text)


@click.command()
@click.argument("tag", required=False)
@click.option("--offline", is_flag=True, help="Do not ask the source.")
@click.pass_context
def preflight(ctx: click.Context, tag: str | None, offline: bool) -> None:
    """Run every check for deploying TAG (else the newest); read-only."""
    from updater.operations import planning

    face: Face = ctx.obj
    found = planning.preflight(operations.open_root(face.root), Request("deploy", tag), offline=offline)
    marks = {"ok": output.good("ok"), "warning": output.warning("warning"), "failed": output.bad("failed")}

    def text() -> None:
        for it in found["checks"]:
            face.say(f"{marks[it['result']]:<8} {it['name']}: {it['summary']}")
            if it["remedy"] and it["result"] != "ok":
                face.say(output.dim(f"         remedy: {it['remedy']}"))
        face.say(output.good("ready") if found["ready"] else output.bad("not ready"))

    face.emit(found, text)
    ctx.exit(0 if found["ready"] else 3)
