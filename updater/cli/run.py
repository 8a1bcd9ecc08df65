"""start, stop, restart, force-stop, health."""

from __future__ import annotations

from typing import Any

import click

from updater.cli import output
from updater.cli.output import Face
from updater.operations import running

Json = dict[str, Any]
_processes = click.argument("processes", nargs=-1)
_wait = click.option("--wait/--no-wait", default=True, help="Wait until the probes pass (the default).")


def _tell(face: Face, found: list[Json]) -> None:
    def text() -> None:
        for it in found:
            state = output.good(it["state"]) if it["state"] == "running" else output.bad(it["state"])
            face.say(f"{it['name']}: {state}" + (f" (pid {it['pid']}, {it['release']})" if it["pid"] else ""))
        if not found:
            face.say("no processes are configured")

    face.emit(found, text)


def _tell_end(face: Face, how: str, names: list[str], warnings: list[str]) -> None:
    def text() -> None:
        for line in warnings:
            face.warn(line)
        face.say(f"{how} {', '.join(names)}" if names else "nothing was running")

    face.emit({how: names, "warnings": warnings}, text)


@click.command()
@_processes
@_wait
@click.pass_obj
def start(face: Face, processes: tuple[str, ...], wait: bool) -> None:
    """Start PROCESSES (else all) of the release in service."""
    _tell(face, running.start(face.open(), processes, wait=wait, warn=face.warn))


@click.command()
@_processes
@click.pass_obj
def stop(face: Face, processes: tuple[str, ...]) -> None:
    """Stop PROCESSES (else all): politely, then firmly."""
    warnings: list[str] = []
    found = running.stop(face.open(), processes, warn=warnings.append)
    _tell_end(face, "stopped", found, warnings)


@click.command()
@_processes
@_wait
@click.pass_obj
def restart(face: Face, processes: tuple[str, ...], wait: bool) -> None:
    """Stop PROCESSES (else all) and start those of the release in service."""
    _tell(face, running.restart(face.open(), processes, wait=wait, warn=face.warn))


@click.command("force-stop")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def force_stop(face: Face, yes: bool) -> None:
    """Kill every managed process at once, without asking it."""
    root = face.open()
    if living := running.present(root):
        output.confirm(f"Kill {', '.join(living)} without asking them?", yes=yes, face=face)
    warnings: list[str] = []
    found = running.force_stop(root, warn=warnings.append)
    _tell_end(face, "killed", found, warnings)


@click.command()
@click.pass_context
def health(ctx: click.Context) -> None:
    """Ask every probe once. Exit code 4 if a required one fails."""
    face: Face = ctx.obj
    found = running.ask_health(face.open())

    def text() -> None:
        for it in found["probes"]:
            mark = (
                output.good("ok")
                if it["ok"]
                else output.bad("failed")
                if it["required"]
                else output.warning("warning")
            )
            face.say(f"{mark:<8} {it['process']}: {it['summary']}")
            for line in it["evidence"] if not it["ok"] else ():
                face.say(output.dim(f"         {line}"))
        verdict = output.good("healthy") if found["healthy"] else output.bad("not healthy")
        face.say(f"{found['version']} is {verdict}")

    face.emit(found, text)
    ctx.exit(0 if found["healthy"] else 4)
