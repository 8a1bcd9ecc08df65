"""The command ``updater``: its options, its list of commands (imported when they are used), and its exit codes."""

from __future__ import annotations

import importlib
import itertools
import os
import sys
from typing import Any

import click

from updater.cli.output import Face
from updater.errors import EXIT_CODES, Cancelled, UpdaterError

COMMANDS: dict[str, dict[str, str]] = {
    "Begin": {
        "init": "Make a root: layout, updater.toml with comments.",
        "check": "Is there a newer release?",
        "preflight": "Run every check; read-only.",
        "notify-test": "Send a test message to everybody who is told.",
    },
    "Deploy": {
        "deploy": "Put a release into service, or leave everything as it was.",
        "fetch": "Install a release without activating it.",
        "activate": "Put an installed release into service; no network.",
        "rollback": "Go back to the previous good release; no network.",
        "cancel": "Cancel the running deployment; everything is undone.",
        "recover": "Bring an interrupted deployment to a safe end.",
        "unlock": "End a stuck operation, then recover.",
    },
    "Look": {
        "status": "What is in service, and does it run?",
        "releases": "Installed releases.",
        "history": "Past deployments.",
        "progress": "Where the running deployment stands.",
        "logs": "The log of updater or of a process.",
        "diff": "What changed between two releases.",
        "health": "Run every probe once.",
        "report": "Collect what a maintainer would ask for, secrets blanked out.",
    },
    "Releases": {
        "verify": "Re-hash a release against its address.",
        "pin": "Never prune a release.",
        "unpin": "Let a release be pruned again.",
        "mark-bad": "Never take a release by itself again.",
        "prune": "Remove old releases.",
        "hold": "Let no other release go into service.",
        "release-hold": "Lift that.",
    },
    "Data": {
        "backup": "Make, list, verify, restore and prune backups.",
    },
    "Processes": {
        "start": "Start processes of the release in service.",
        "stop": "Stop processes.",
        "restart": "Stop and start processes.",
        "force-stop": "Kill every managed process at once.",
    },
    "Dashboard": {
        "serve": "The REST API and the dashboard.",
    },
}

MODULES = {
    "init": "begin", "check": "begin", "preflight": "begin", "notify-test": "notify",
    "deploy": "deploy", "fetch": "deploy", "activate": "deploy", "rollback": "deploy",
    "cancel": "deploy", "recover": "deploy", "unlock": "deploy",
    "status": "status",
    "releases": "look", "history": "look", "progress": "look", "logs": "look", "diff": "look",
    "report": "report",
    "verify": "keep", "pin": "keep", "unpin": "keep", "mark-bad": "keep", "prune": "keep",
    "hold": "keep", "release-hold": "keep",
    "backup": "backup",
    "serve": "serve",
    "start": "run", "stop": "run", "restart": "run", "force-stop": "run", "health": "run",
}  # fmt: skip

ALWAYS = (0, 1, 2, 130)
"""Exit codes that every command can end with."""

EXITS = {
    "init": (4,), "check": (4, 8), "preflight": (3,), "notify-test": (3, 8),
    "deploy": (3, 4, 5, 6, 7, 8, 9), "fetch": (3, 4, 5, 6, 7, 8), "activate": (3, 4, 5, 6, 7, 9), "rollback": (3, 4, 5, 6, 7, 9),
    "cancel": (3, 4, 5, 6, 7, 8, 9), "recover": (3, 4, 5, 6), "unlock": (3, 4, 5, 6),
    "status": (), "releases": (), "history": (), "progress": (), "logs": (3,), "diff": (7,), "health": (4,), "report": (4,),
    "verify": (7,), "pin": (3, 4, 5, 6, 7), "unpin": (3, 4, 5, 6, 7), "mark-bad": (3, 4, 5, 6), "prune": (3, 4, 5, 6),
    "hold": (4,), "release-hold": (4,),
    "backup create": (3, 4, 5, 6), "backup list": (), "backup verify": (7,), "backup restore": (3, 4, 5, 6, 7, 9),
    "backup prune": (3, 4, 5, 6),
    "start": (3, 4, 5, 6), "stop": (3, 4, 5, 6), "restart": (3, 4, 5, 6), "force-stop": (3, 4),
    "serve": (3, 4),
}  # fmt: skip
"""Those that a command can end with besides; tests hold every run against it."""


_DEPLOYMENTS = ("deploy", "fetch", "activate", "rollback", "cancel", "backup restore")
_MEANS = {
    ("health", 4): "a required probe fails",
    ("backup create", 4): "the backup could not be made; nothing is left of it",
    ("notify-test", 8): "an address has not taken the message",
}


def exit_codes(command: str) -> dict[int, str]:
    """The exit codes that a command (``backup list``) can end with, and what they mean there."""
    meanings = {code: EXIT_CODES[code].meaning for code in sorted({*ALWAYS, *EXITS[command]})}
    if 4 in meanings and command not in _DEPLOYMENTS:
        processes = command in COMMANDS["Processes"]
        meanings[4] = "a process, a probe or the disk failed" if processes else "the disk failed"
    return meanings | {code: text for (name, code), text in _MEANS.items() if name == command}


class Commands(click.Group):
    """A group that imports a command's module only when that command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for section in COMMANDS.values() for name in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in MODULES:
            return None
        module = importlib.import_module(f"updater.cli.{MODULES[cmd_name]}")
        command = getattr(module, cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)
        for name, one in command.commands.items() if isinstance(command, click.Group) else [("", command)]:
            one.epilog = _exits(f"{cmd_name} {name}".rstrip())
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as wrong:
            import difflib

            if close := difflib.get_close_matches(args[0], list(MODULES), n=1):
                raise click.UsageError(f"{wrong.message} Did you mean {close[0]!r}?", ctx) from None
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl(list(commands.items()))


def _exits(command: str) -> str:
    lines = [f"{code:>3}  {meaning}" for code, meaning in exit_codes(command).items()]
    return "\b\nExit codes:\n" + "\n".join(lines)


def _version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from updater import version

        click.echo(f"updater {version()}")
        ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--root", metavar="DIR", help="The root; else $UPDATER_ROOT, else the nearest with updater.toml."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
@click.option("-v", "--verbose", is_flag=True, help="Say more; show tracebacks.")
@click.option("-q", "--quiet", is_flag=True, help="Say only what went wrong.")
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version."
)
@click.pass_context
def updater(ctx: click.Context, root: str | None, as_json: bool, verbose: bool, quiet: bool) -> None:
    """Update a self-hosted Python application safely, and always be able to go back."""
    ctx.obj = Face(root, as_json, verbose, quiet)


def run() -> None:
    """Run the command line and exit with the documented code (design page, section 6)."""
    code = _run(sys.argv[1:])
    # Nothing is left to be done, and tearing the interpreter down takes as long as most commands.
    os._exit(_flushed(code))


def _flushed(code: int) -> int:
    """Hand the last output on. A reader that has seen enough (``| head``) is no failure, a full disk is one."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except BrokenPipeError:
            pass
        except OSError:
            code = code or UpdaterError.exit_code
    return code


def _run(argv: list[str]) -> int:
    argv = _global_options_first(argv)
    face = Face(json="--json" in argv, verbose="-v" in argv or "--verbose" in argv)
    try:
        result = updater.main(argv, prog_name="updater", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except UpdaterError as error:
        if face.verbose:
            import traceback

            traceback.print_exc()
        face.fail(error)
        return error.exit_code
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except (click.Abort, KeyboardInterrupt):
        face.fail(Cancelled("cancelled"))
        return Cancelled.exit_code
    except click.ClickException as wrong:
        from updater.errors import UsageError

        if face.json:
            face.fail(UsageError(wrong.format_message()))
        else:
            wrong.show()
        return UsageError.exit_code
    except (BrokenPipeError, SystemExit):  # click leaves by the second when a pipe's reader has gone
        return 0
    except OSError as failure:
        from updater.deployment.engine import storage_error

        explained = storage_error(failure)
        if face.verbose:
            import traceback

            traceback.print_exc()
        try:
            face.fail(explained)
        except OSError:  # it is the output itself that cannot be written
            click.echo(explained.as_text(), err=True)
        return explained.exit_code
    except Exception as failure:
        return _unforeseen(face, failure)


def _global_options_first(argv: list[str]) -> list[str]:
    """Let people write the global options behind the command as well: ``updater status --json``."""
    flags, rest = [], []
    words = iter(argv)
    for word in words:
        if word == "--":
            rest += [word, *words]
        elif word in ("--json", "-v", "--verbose", "-q", "--quiet") or word.startswith("--root="):
            flags.append(word)
        elif word == "--root":
            flags += [word, *itertools.islice(words, 1)]
        else:
            rest.append(word)
    return [*flags, *rest]


def _unforeseen(face: Face, failure: Exception) -> int:
    if face.verbose:
        import traceback

        traceback.print_exc()
    face.fail(
        UpdaterError(
            f"unforeseen: {type(failure).__name__}: {failure}",
            advice="this is a defect of updater: run the command again with -v and report what it prints.",
        )
    )
    return UpdaterError.exit_code
