"""notify-test."""

from __future__ import annotations

import click

from updater import operations
from updater.cli import output
from updater.cli.output import Face


@click.command("notify-test")
@click.pass_context
def notify_test(ctx: click.Context) -> None:
    """Send a test message to every address of [notify]. Exit code 8 if one of them did not take it."""
    from updater.operations import notifying

    face: Face = ctx.obj
    found = notifying.send_test(operations.open_root(face.root))

    def text() -> None:
        for problem in found["problems"]:
            face.warn(problem)
        for it in found["services"]:
            mark = output.good("sent") if it["ok"] else output.bad("failed")
            face.say(f"{mark:<8} {it['service']}" + (f": {it['problem']}" if it["problem"] else ""))

    face.emit(found, text)
    ctx.exit(0 if found["ok"] else 8)
