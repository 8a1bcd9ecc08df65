"""deploy, fetch, activate, rollback, cancel, recover, unlock."""

from __future__ import annotations

import getpass
import os
import re
from typing import Any

import click

from updater import operations, words
from updater.cli import follow, output
from updater.cli.output import Face
from updater.deployment.holder import holder
from updater.deployment.transaction import Request
from updater.errors import RollbackFailed
from updater.layout import Layout
from updater.operations import deploying


def run(face: Face, request: Request, root: operations.Root | None = None) -> int:
    """Start a deployment, or another transaction, and show it until it ends; returns the exit code."""
    layout = root.layout if root else _place(face, request)
    deployment = deploying.launch(layout, request)
    try:
        return follow.follow(face, deployment)
    finally:
        deployment.close()


def _place(face: Face, request: Request) -> Layout:
    """The root. Its configuration is for the worker to read; here only what is wrong with it is told."""
    layout = operations.find_root(face.root)
    if not operations.is_as_started(layout):
        return (face.open() if request.goes_back else operations.open_root(face.root)).layout
    return layout


def user() -> str:
    """Who asks; behind sudo also who that was."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())
    behind = os.environ.get("SUDO_USER", "")
    return f"{name} (sudo by {behind})" if behind and os.getuid() == 0 and behind != name else name


def origin() -> str:
    """From where: ``UPDATER_ORIGIN`` where a timer or a program of the operator's sets it (``schedule``), else the shell."""
    word = os.environ.get("UPDATER_ORIGIN", "")
    return word if re.fullmatch(r"[a-z][a-z-]{0,31}", word) else "shell"


_force = click.option(
    "--force", is_flag=True, help="Past a bad mark or files that were edited; it is recorded."
)
_keep_config = click.option(
    "--keep-config",
    is_flag=True,
    help="Leave the settings as they are, although the release ran with others before.",
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
@_keep_config
@_force
@_reason
@click.pass_context
def deploy(
    ctx: click.Context,
    tag: str | None,
    dry_run: bool,
    replace: bool,
    keep_config: bool,
    force: bool,
    reason: str,
) -> None:
    """Put release TAG into service; without TAG the newest of the channel.

    Whatever fails, everything is as it was before, and the old release is in service.
    """
    face: Face = ctx.obj
    request = Request(
        "deploy", tag,
        force=force, replace=replace, keep_config=keep_config, user=user(), origin=origin(), reason=reason,
    )  # fmt: skip
    if dry_run:
        _show_plan(face, request)
        return
    ctx.exit(run(face, request))


def _show_plan(face: Face, request: Request) -> None:
    from updater.operations import planning
    from updater.settings import report

    plan = planning.plan(operations.open_root(face.root), request)

    def text() -> None:
        face.say(output.bold(plan["summary"]))
        for phase in plan["phases"]:
            face.say(f"  {phase['name']:<10} {phase['does']}")
        for line in report.lines(plan["configuration"] or {}, ahead=True):
            face.say(f"  {line}")
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
    request = Request(
        "fetch", tag, rebuild=rebuild, replace=replace, force=force, user=user(), origin=origin()
    )
    ctx.exit(run(ctx.obj, request))


@click.command()
@click.argument("version")
@_keep_config
@_force
@_reason
@click.pass_context
def activate(ctx: click.Context, version: str, keep_config: bool, force: bool, reason: str) -> None:
    """Put the installed release VERSION into service; no network."""
    ctx.exit(_switch(ctx.obj, "activate", version, keep_config, force, reason))


def _switch(face: Face, kind: str, to: str | None, keep_config: bool, force: bool, reason: str) -> int:
    return run(
        face,
        Request(kind, to, keep_config=keep_config, force=force, user=user(), origin=origin(), reason=reason),
    )


@click.command()
@click.option("--to", metavar="VERSION", help="That release instead of the previous good one.")
@click.option(
    "--restore-data",
    is_flag=True,
    help="Also put back the data that it had when it was left; the present ones are kept as a backup.",
)
@_keep_config
@_force
@_reason
@click.pass_context
def rollback(
    ctx: click.Context, to: str | None, restore_data: bool, keep_config: bool, force: bool, reason: str
) -> None:
    """Go back to the previous good release, with the settings it ran with; no network."""
    request = Request(
        "rollback", to,
        force=force, restore_data=restore_data, keep_config=keep_config, user=user(), origin=origin(), reason=reason,
    )  # fmt: skip
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
    root = face.open()
    ctx.exit(_tell(face, root.layout, deploying.recover(root)))


def _tell(face: Face, layout: Layout, records: list[dict[str, Any]]) -> int:
    """Print what became of interrupted deployments. The exit code is 5 if one of them could not be undone."""
    from updater.deployment import missing

    absent = missing.told(layout)

    def text() -> None:
        for record in records:
            face.say(words.recovered(record))
        if not records:
            face.say("nothing to recover")
            for it in deploying.by_scripts(layout):
                face.say(f"done by a script: {words.ended(it)}, {output.moment(it['ended'])}")
        for line in absent:
            face.warn(line)
        if absent:
            face.warn(f"nothing starts without them: {missing.way_out(layout)}")

    face.emit({"recovered": records, "missing": absent}, text)
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
    ctx.exit(_tell(face, root.layout, deploying.unlock(root)))
