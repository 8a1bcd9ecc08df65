"""report."""

from __future__ import annotations

from pathlib import Path

import click

from updater.cli import output
from updater.cli.output import Face


@click.command()
@click.option(
    "--output",
    "-o",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where to; by default here, with the time in its name.",
)
@click.pass_obj
def report(face: Face, file: Path | None) -> None:
    """Collect what a maintainer would ask for in one archive, with secrets blanked out."""
    from updater.operations import reporting

    made = reporting.report(face.open(), file)

    def text() -> None:
        for name, size in made["holds"].items():
            face.say(f"{output.size(size):>10}  {name}")
        face.say(output.good(made["file"]) + f" ({output.size(made['size'])}, readable by you alone)")
        face.say(
            "Secrets are blanked out as far as they could be told: look through it before you give it away."
        )

    face.emit(made, text)
