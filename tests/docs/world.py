"""Where the blocks of a page are run: a directory with a root in it, as one that a reader has, and a shell in it."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from examples.release_server import Release, ReleaseServer
from tests.docs.pages import HERE, Block
from tests.site import REPOSITORY, Site, eventually, free_port, plain

MORE = """
[processes.bot]
command = ["sleep", "3600"]
[server]
port = {port}
"""
"""Pages speak of a bot and a dashboard; the second is the site's application."""

LIMIT = 120
"""Seconds that a block may take."""


@dataclass
class Ran:
    """How a command or a block ended, in the page's words."""

    typed: str
    code: int
    output: str


@dataclass
class World:
    """A place for blocks. What a page writes stands for something else here (:attr:`says`); what is printed is told in the page's words."""

    place: Path
    server: ReleaseServer
    site: Site
    here: Path
    says: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    after: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    """What a preparation has made outside the root, and how it goes away."""

    def __post_init__(self) -> None:
        self.dashboard_port = free_port()
        self.says = {
            "/srv/": f"{self.place}/srv/",
            "OWNER/NAME": REPOSITORY,
            "https://api.github.com": self.server.api_url,
            "8080": str(self.site.port),
            "5000": str(self.dashboard_port),
            **self.says,
        }

    def configure(self, extra: str = "", **settings: object) -> None:
        """Write ``updater.toml`` anew; ``extra`` goes to its end."""
        self.site.configure(extra=f"{MORE.format(port=self.dashboard_port)}{extra}", **settings)
        text = self.site.layout.config.read_text()
        self.site.layout.config.write_text(text.replace("processes.web", "processes.dashboard"))

    def run(self, block: Block) -> Iterator[Ran]:
        """Run a block: a script as a whole, of a console each command by itself."""
        if block.language == "sh":
            yield self._run(block.text, block)
            return
        for command, _ in console(block.text):
            yield self._run(command, block)

    def _run(self, text: str, block: Block) -> Ran:
        state = self.place / ".shell"
        script = self.place / "block"
        carried = f'. "{state}"\n' if state.exists() else ""
        script.write_text(
            f"{carried}cd {shlex.quote(str(self.here))}\n"
            f"trap 'pwd >{state}.at && export -p >{state}' EXIT\nset -e\n{self.here_words(text)}"
        )
        with contextlib.ExitStack() as stack:
            stdin = subprocess.DEVNULL
            if answers := block.notes.get("answers"):
                ours, stdin = pty.openpty()
                stack.callback(os.close, ours)
                stack.callback(os.close, stdin)
                os.write(ours, "".join(f"{it}\n" for it in answers).encode())
            said = stack.enter_context((self.place / "said").open("w+b"))
            process = subprocess.Popen(
                ["sh", script], stdin=stdin, stdout=said, stderr=subprocess.STDOUT, env=self.env(), cwd=self.here,
                start_new_session=True,
            )  # fmt: skip
            code = _waited(process, said, block)
            output = _read(said)
        with contextlib.suppress(OSError):
            self.here = Path(Path(f"{state}.at").read_text().rstrip("\n"))
        return Ran(text.rstrip("\n"), code, self.page_words(plain(output)))

    def env(self) -> dict[str, str]:
        env = self.site.env()
        del env["UPDATER_ROOT"]  # readers stand in the root
        programs = os.pathsep.join([str(Path(sys.executable).parent), env["PATH"]])
        return {
            **env,
            "PATH": programs,
            "TERM": "dumb",
            "EDITOR": "true",
            "COLUMNS": "200",
            **self.environment,
        }

    def here_words(self, text: str) -> str:
        return _replaced(text, self.says)

    def page_words(self, text: str) -> str:
        back = {value: key for key, value in self.says.items()}
        return _replaced(text, {f"{self.place}/": "/", str(HERE): "/home/you/updater", **back})

    def runs(self, version: str) -> None:
        """The release is in service by every fact there is."""
        self.site.runs(version, ("dashboard", "bot"))

    def end(self) -> None:
        with self.after:
            self.site.end()


def _waited(process: subprocess.Popen[bytes], said: IO[bytes], block: Block) -> int:
    """The exit code. A block that goes on for ever gets a Ctrl-C when it has shown what it should."""
    try:
        for text in block.notes.get("until", ()):
            eventually(lambda: text in _read(said) or process.poll() is not None, text, LIMIT)  # noqa: B023
            for patience in (
                5,
                10,
                LIMIT,
            ):  # one that comes between two commands of a shell may be lost, as a person's is
                if process.poll() is not None:
                    break
                os.killpg(process.pid, signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(patience)
                    return block.ends
        return process.wait(LIMIT)
    except (subprocess.TimeoutExpired, AssertionError):
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


def _read(said: IO[bytes]) -> str:
    return os.pread(said.fileno(), 10**7, 0).decode(errors="replace")


def _replaced(text: str, words: dict[str, str]) -> str:
    if not words:
        return text
    every = re.compile("|".join(map(re.escape, sorted(words, key=len, reverse=True))))
    return every.sub(lambda found: words[found[0]], text)


@contextlib.contextmanager
def world(place: Path) -> Iterator[World]:
    """A root /srv/bot that is configured, its releases v1.3.2 and v1.4.0 published, nothing deployed."""
    releases: list[Release] = []
    with ReleaseServer(REPOSITORY, releases) as server:
        (place / "srv").mkdir()
        site = Site(place, server, releases, name="srv/bot")
        made = World(place, server, site, site.root)
        made.configure()
        try:
            yield made
        finally:
            made.end()
            eventually(lambda: not site.processes(), "what the page started has ended")


def console(text: str) -> Iterator[tuple[str, str]]:
    """The commands of a console, each with what is shown below it. `$ ` begins one, `> ` goes on with it."""
    command, shown = "", ""
    for line in text.splitlines():
        if line.startswith("$ "):
            if command:
                yield command, shown
            command, shown = line[2:] + "\n", ""
        elif line.startswith("> ") and not shown:
            command += line[2:] + "\n"
        else:
            shown += line + "\n"
    yield command, shown


SAME = (
    (r"backup_\d{8}_\d{6}", "backup_…"),
    (r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|\+00:00)?", "MOMENT"),
    (r"\bpid \d+", "pid N"),
    (r"\b\d+(\.\d+)? (B|kB|KB|MB|GB)\b", "SIZE"),
    (r"\b\d+(\.\d+)? ?(ms|s|min|h|d)\b( \d+ (s|min|h)\b)?", "TIME"),
    (r"(?<=sha256:)[0-9a-f]{64}|(?<=tree of commit )[0-9a-f]{12,}", "DIGEST"),
    (r"/home/you/", "~/"),
    (r"[ \t]+", " "),
)
"""What differs from one run to the next."""


def _same(text: str) -> str:
    for pattern, word in SAME:
        text = re.sub(pattern, word, text)
    return "\n".join(line.strip() for line in text.strip().splitlines())


def shows(shown: str, output: str) -> bool:
    """Whether a command's output is what the page shows. `…` stands for anything, a line of nothing else for any lines."""
    pattern = ""
    for line in _same(shown).splitlines():
        pattern += r"(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*") + r"\n"
    return re.fullmatch(pattern, f"{_same(output)}\n" if output.strip() else "") is not None
