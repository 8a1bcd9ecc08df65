"""deploy, fetch, activate, rollback, cancel, recover, unlock."""

from __future__ import annotations

import getpass
from typing import Any

import click

from updater import operations
from updater.cli import follow, output
from updater.cli.output import Face
from updater.deployment.holder import holder
from updater.deployment.transaction import Request
from updater.errors import RollbackFailed
from updater.operations import deploying, planning


def run(face: Face, request: Request) -> int:
    """Start a deployment, or another transaction, and show it until it ends; returns the exit code."""
    root = operations.open_root(face.root)
    deployment = deploying.launch(root, request)
    try:
        return follow.follow(face, deployment)
    finally:
        deployment.close()


def user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


_force = click.option(
    "--force", is_flag=True, help="Past a bad mark or files that were edited; it is recorded."
)
_reason = click.option("--reason", default="", help="Why; kept in the history.")


@click.command()
@click.argument("tag", required=False)
@click.option("--dry-run", is_flag=True, help="Show the plan; write nothing.")
@click.option(
    "--replace",
    is_flag=True,
    help="Where the tag now has other content: install that beside the old release.",
)
@_force
@_reason
@click.pass_context
def deploy(
    ctx: click.Context, tag: str | None, dry_run: bool, replace: bool, force: bool, reason: str
) -> None:
    """Put release TAG into service; without TAG the newest of the channel.

    Whatever fails, everything is as it was before, and the old release is in service.
    """
    face: Face = ctx.obj
    request = Request("deploy", tag, force=force, replace=replace, user=user(), reason=reason)
    if dry_run:
        _show_plan(face, request)
        return
    ctx.exit(run(face, request))


def _show_plan(face: Face, request: Request) -> None:
    plan = planning.plan(operations.open_root(face.root), request)

    def text() -> None:
        face.say(output.bold(plan["summary"]))
        for phase in plan["phases"]:
            face.say(f"  {phase['name']:<10} {phase['does']}")
        for check in plan["preflight"]:
            if check["result"] != "ok":
                face.say(output.warning(f"  {check['result']}: {check['summary']}"))
        face.say("Nothing was written.")

    face.emit(plan, text)


@click.command()
@click.argument("tag")
@click.option("--rebuild", is_flag=True, help="Build the environment of an installed release anew.")
@click.option(
    "--replace",
    is_flag=True,
    help="Where the tag now has other content: install that beside the old release.",
)
@_force
@click.pass_context
def fetch(ctx: click.Context, tag: str, rebuild: bool, replace: bool, force: bool) -> None:
    """Install release TAG without activating it; the application is not touched."""
    request = Request("fetch", tag, rebuild=rebuild, replace=replace, force=force, user=user())
    ctx.exit(run(ctx.obj, request))


@click.command()
@click.argument("version")
@_force
@_reason
@click.pass_context
def activate(ctx: click.Context, version: str, force: bool, reason: str) -> None:
    """Put the installed release VERSION into service; no network."""
    ctx.exit(run(ctx.obj, Request("activate", version, force=force, user=user(), reason=reason)))


@click.command()
@click.option("--to", metavar="VERSION", help="That release instead of the previous good one.")
@click.option(
    "--restore-data",
    is_flag=True,
    help="Also put back the data that it had when it was left; the present ones are kept as a backup.",
)
@_force
@_reason
@click.pass_context
def rollback(ctx: click.Context, to: str | None, restore_data: bool, force: bool, reason: str) -> None:
    """Go back to the previous good release; no network."""
    request = Request("rollback", to, force=force, restore_data=restore_data, user=user(), reason=reason)
    ctx.exit(run(ctx.obj, request))


@click.command()
@click.pass_context
def cancel(ctx: click.Context) -> None:
    """Cancel the running deployment; everything it did is undone."""
    face: Face = ctx.obj
    record = deploying.cancel(face.open())
    if record["outcome"] == "cancelled":
        face.emit({"deployment": record}, lambda: face.say(record["error"]["message"]))
        return
    ctx.exit(follow.result(face, record))


@click.command()
@click.pass_context
def recover(ctx: click.Context) -> None:
    """Bring an interrupted deployment to a safe end. Every command that changes something does so first."""
    face: Face = ctx.obj
    ctx.exit(_tell(face, deploying.recover(face.open())))


def _tell(face: Face, records: list[dict[str, Any]]) -> int:
    """Print what became of interrupted deployments. The exit code is 5 if one of them could not be undone."""

    def text() -> None:
        for record in records:
            face.say(follow.recovered_text(record))
        if not records:
            face.say("nothing to recover")

    face.emit({"recovered": records}, text)
    failed = any(record["outcome"] == "rollback-failed" for record in records)
    return RollbackFailed.exit_code if failed else 0


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def unlock(ctx: click.Context, yes: bool) -> None:
    """End whoever holds the lock, politely and then firmly, and recover."""
    face: Face = ctx.obj
    root = face.open()
    found = holder(root.layout)
    if found is not None:
        idle = f"no progress for {output.seconds(found.idle)}" + (", stale" if found.stale else "")
        output.confirm(f"End {found.owner.describe()} ({idle})?", yes=yes, face=face)
    ctx.exit(_tell(face, deploying.unlock(root)))
