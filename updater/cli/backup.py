"""backup create, list, verify, restore, prune."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from updater import operations
from updater.cli import output
from updater.cli.output import Face
from updater.operations import backing

Json = dict[str, Any]


@click.group()
def backup() -> None:
    """Look after data: consistent, verified copies of shared/."""


@backup.command()
@click.option("--label", default="", help="What it is for; a backup with a label is never pruned by itself.")
@click.option("--force", is_flag=True, help="Keep a corrupt database as it is instead of refusing.")
@click.pass_obj
def create(face: Face, label: str, force: bool) -> None:
    """Make a backup while the application runs; it counts once it has been read back."""
    root = face.open()
    with output.bar(face, "backing up") as on_progress:
        made = backing.create(root, label=label, force=force, on_progress=on_progress)

    def text() -> None:
        for warning in made["warnings"]:
            face.say(output.warning(f"warning: {warning}"))
        new = f", {output.size(made['own'])} of them new" if made["own"] < made["stored"] else ""
        face.say(
            output.good(made["id"])
            + f": {output.size(made['size'])} in {output.size(made['stored'])}{new}, read back and matched"
        )

    face.emit(made, text)


@backup.command("list")
@click.pass_obj
def list_(face: Face) -> None:
    """The backups, newest first."""
    found = backing.listing(face.open())

    def text() -> None:
        if not found:
            face.say("there are no backups yet: updater backup create")
            return
        output.table(
            ["backup", "made", "release", "holds", "stored", "own", "why"], [_row(it) for it in found]
        )

    face.emit(found, text)


def _row(it: Json) -> list[str]:
    if it["state"] == "damaged":
        return [it["id"], output.bad("cannot be read"), "", "", "", "", it["problem"]]
    why = f"{it['reason']}: {it['label']}" if it["label"] else it["reason"]
    return [
        it["id"], output.moment(it["created"]), it["release"] or "", output.size(it["size"]),
        output.size(it["stored"]), output.size(it["own"]), why,
    ]  # fmt: skip


@backup.command()
@click.argument("name", metavar="[ID]", required=False)
@click.option("--all", "everything", is_flag=True, help="Every backup.")
@click.pass_context
def verify(ctx: click.Context, name: str | None, everything: bool) -> None:
    """Read a backup (else the newest) to its end and compare every file with its digest. Exit code 7 if one is damaged."""
    face: Face = ctx.obj
    reports = backing.verify(face.open(), name, everything=everything)

    def text() -> None:
        for it in reports:
            face.say(
                f"{it['id']}: "
                + (output.good("sound") if it["sound"] else output.bad(f"damaged: {it['problem']}"))
            )
        if not reports:
            face.say("there are no backups yet: updater backup create")

    face.emit(reports, text)
    ctx.exit(0 if all(it["sound"] for it in reports) else 7)


@backup.command()
@click.option("--keep", type=click.IntRange(min=1), help="How many stay; else [backup] keep.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def prune(face: Face, keep: int | None, yes: bool) -> None:
    """Remove old backups; never one that a retained release may need, or one with a label."""
    root = operations.open_root(face.root)
    doomed = backing.prunable(root, keep)
    if doomed:
        output.confirm(f"Remove {', '.join(doomed)}?", yes=yes, face=face)
    removed = backing.prune(root, keep) if doomed else []
    face.emit(
        {"removed": removed},
        lambda: face.say(f"removed {', '.join(removed)}" if removed else "nothing to remove"),
    )


@backup.command()
@click.argument("name", metavar="ID")
@click.option(
    "--to",
    "into",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Unpack into this new directory, for a look; the application is not touched.",
)
@click.option(
    "--only", "parts", multiple=True, metavar="PART",
    help="config, data, dumps or logs (with --to also state); may be given again. Else config, data and dumps.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Also of another root, or while another process uses a database.")
@click.option("--reason", default="", help="Why; kept in the history.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def restore(
    ctx: click.Context,
    name: str,
    into: Path | None,
    parts: tuple[str, ...],
    force: bool,
    reason: str,
    yes: bool,
) -> None:
    """Put the data of backup ID (or `latest`) back in place.

    The present state is kept as another backup first. A restore that fails ends where it began.
    """
    face: Face = ctx.obj
    root = face.open()
    if into is None:
        from updater.cli import deploy  # a quarter of what the other commands would import
        from updater.deployment.transaction import Request

        found = backing.restorable(root, name, parts)
        output.confirm(_question(found), yes=yes, face=face)
        request = Request(
            "restore", found["id"], parts=parts, force=force,
            user=deploy.user(), origin=deploy.origin(), reason=reason,
        )  # fmt: skip
        ctx.exit(deploy.run(face, request, root))
    done = backing.extract(root, name, into.absolute(), parts)
    face.emit(
        done,
        lambda: face.say(
            output.good(f"{done['id']} is unpacked in {done['into']}") + f" ({', '.join(done['parts'])})"
        ),
    )


def _question(found: Json) -> str:
    of = f", with the data of {found['release']}" if found["release"] else ""
    now = found["in_service"]
    differs = f" (in service: {now})" if now and found["release"] not in (None, now) else ""
    stops = f" {', '.join(found['running'])} will be stopped and started again." if found["running"] else ""
    return (
        f"{found['id']} was made {output.moment(found['created'])}{of}{differs}. The present state is kept as a backup."
        f"{stops} Restore {', '.join(found['parts'])}?"
    )
