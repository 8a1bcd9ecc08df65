"""Everything that can go wrong, as a small tree that a caller can act on.

An error says what failed and why (``message``, ``details``), what state things are in now (``state``) and what to do
next (``advice``). ``code`` is stable and for machines; the exit code follows from the class (design page, section 6).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple


class ExitCode(NamedTuple):
    """What an exit code means, what state things are in then, and what to do."""

    meaning: str
    state: str
    advice: str


EXIT_CODES: dict[int, ExitCode] = {
    0: ExitCode("done, or nothing to do", "As asked.", "Nothing."),
    1: ExitCode(
        "an unforeseen error",
        "What was being changed is put back, by the command itself or by the next one that changes something.",
        "Run the command again with -v. If it is the same: `updater report`, and tell the maintainers.",
    ),
    2: ExitCode(
        "wrong usage or configuration",
        "Nothing was changed.",
        "Correct what the message names: the command, the line of updater.toml, the root.",
    ),
    3: ExitCode(
        "a preflight check failed, nothing changed",
        "Nothing was changed; what ran runs.",
        "Each failed check names its remedy; `updater preflight` shows them all. Of a hold: `updater release-hold`.",
    ),
    4: ExitCode(
        "the deployment failed and was rolled back",
        "The release before it is in service again, with its data and settings. "
        "Of `health`, `start` and `restart`: what runs was left running.",
        "Read the evidence in the message, or later in `updater history latest`, and `updater logs errors`. "
        "Correct the release, and publish another one.",
    ),
    5: ExitCode(
        "it failed and so did the way back",
        "`current` is back on the release before, unless the message says otherwise; its processes may not run. "
        "Data are kept: the message names where.",
        "Do what the message says. The next command that changes something tries the way back again, three times in all; "
        "`updater recover` does only that.",
    ),
    6: ExitCode(
        "another operation holds the lock",
        "Nothing was changed; the other operation goes on.",
        "Wait, or watch it: `updater progress --follow`. `updater cancel` stops a deployment, `updater unlock` ends what does not get on.",
    ),
    7: ExitCode(
        "verification failed",
        "What was received was thrown away, or what is installed is not put into service; what ran runs.",
        "The message names the files. Of an installed release: `updater fetch --rebuild VERSION`, or put back what was edited. "
        "Of an artifact: ask its publisher.",
    ),
    8: ExitCode(
        "the source cannot be reached or has no such release",
        "Nothing was changed; what was downloaded is taken up again by the next try. "
        "Of `notify-test`: an address has not taken the message.",
        "`updater preflight` tells names, connection, certificate and token apart. "
        "`updater activate VERSION` and `updater rollback` need no source.",
    ),
    9: ExitCode(
        "the application is busy",
        "Nothing was stopped; what ran runs.",
        'Try again later, or let updater wait: `on_busy = "wait"` in `[gate]`. `--force` interrupts it.',
    ),
    130: ExitCode(
        "cancelled",
        "Everything is as it was before.",
        "Nothing; run the command again when it suits.",
    ),
}
"""The documented exit codes (design page, section 6)."""


class UpdaterError(Exception):
    """An error with an explanation. ``str()`` is the one-line message; :meth:`as_text` the whole story."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        message: str,
        *,
        details: Sequence[str] = (),
        state: str | None = None,
        advice: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = list(details)
        self.state = state
        self.advice = advice

    def as_text(self) -> str:
        """The error for people: one line, its details indented, the state now, the next step."""
        lines = [f"error: {self.message}"]
        lines += [f"  {line}" for detail in self.details for line in detail.splitlines() or [""]]
        if self.state:
            lines.append(f"  {self.state}")
        if self.advice:
            lines.append(f"  Next: {self.advice}")
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """The error for machines; :func:`from_json` reads it back."""
        return {
            "code": self.code,
            "exit_code": self.exit_code,
            "message": self.message,
            "details": self.details,
            "state": self.state,
            "advice": self.advice,
        }


class UsageError(UpdaterError):
    """The command cannot mean anything: an unknown release, a contradiction, not a root."""

    code, exit_code = "usage", 2


class NotFound(UsageError):
    """There is no release, backup, deployment or process of that name."""

    code = "not-found"


class ConfigError(UsageError):
    """``updater.toml`` is wrong; the message names the key, the file and the line."""

    code = "config"

    @property
    def line(self) -> str:
        """What is wrong, on one line."""
        return ": ".join(filter(None, (self.message, "; ".join(self.details))))


class NotARoot(UsageError):
    """No ``updater.toml`` here or above."""

    code = "not-a-root"


class PreflightFailed(UpdaterError):
    """A check before the start failed. Nothing was changed."""

    code, exit_code = "preflight", 3


class DeploymentFailed(UpdaterError):
    """The deployment failed and everything is as it was before."""

    code, exit_code = "deployment-failed", 4


class DeploymentInterrupted(DeploymentFailed):
    """Updater was killed, or the machine stopped, in the middle of it."""

    code = "deployment-interrupted"


class EnvironmentFailed(DeploymentFailed):
    """The virtualenv could not be built or is broken."""

    code = "environment"


class ProcessFailed(DeploymentFailed):
    """A managed process could not be started, stopped or proved."""

    code = "process"


class HealthFailed(DeploymentFailed):
    """A probe failed, or a process died in its watch window."""

    code = "health"


class StorageFailed(DeploymentFailed):
    """The disk is full, read-only or failing, or something stands where it must not."""

    code = "storage"


class BackupFailed(DeploymentFailed):
    """A backup could not be made or put back; the data are as they were."""

    code = "backup"


class Unsteady(BackupFailed):
    """A path became something else between the look and the read; another look may succeed."""

    code = "unsteady"


class DumpFailed(BackupFailed):
    """A command of ``[backup.dumps]`` failed: no dump was made, or one could not be put back."""

    code = "dump"


class RollbackFailed(UpdaterError):
    """The deployment failed and so did the way back."""

    code, exit_code = "rollback-failed", 5


class LockHeld(UpdaterError):
    """Another operation is at work on this root."""

    code, exit_code = "locked", 6


class VerificationFailed(UpdaterError):
    """What was received or is installed is not what it should be."""

    code, exit_code = "verification", 7


class HostileArchive(VerificationFailed):
    """The archive tries to write outside its tree, or holds what no release may hold."""

    code = "hostile-archive"

    def __init__(
        self,
        message: str,
        *,
        details: Sequence[str] = (),
        state: str | None = None,
        advice: str | None = "do not use this artifact; tell the publisher what is wrong with it.",
    ) -> None:
        super().__init__(message, details=details, state=state, advice=advice)


class DigestMismatch(VerificationFailed):
    """The bytes differ from the published digest, tree or checksum."""

    code = "digest-mismatch"


class TooLarge(VerificationFailed):
    """More bytes than the configuration allows."""

    code = "too-large"


class Truncated(VerificationFailed):
    """The archive ends before it says so."""

    code = "truncated"


class TagMoved(VerificationFailed):
    """The tag now names other content than the release installed under it."""

    code = "tag-moved"


class ReleaseChanged(VerificationFailed):
    """Files of an installed release differ from its manifest."""

    code = "release-changed"


class BackupDamaged(VerificationFailed):
    """A backup is not as it was written."""

    code = "backup-damaged"


class SourceFailed(UpdaterError):
    """The source cannot be reached, refuses, or answers nonsense."""

    code, exit_code = "source", 8


class ReleaseNotFound(SourceFailed):
    """The source has no such release, or none at all."""

    code = "release-not-found"


class AccessDenied(SourceFailed):
    """The token is missing, wrong or not allowed to see the repository."""

    code = "access-denied"


class RateLimited(SourceFailed):
    """The source's request quota is used up; the message tells when it is restored."""

    code = "rate-limited"


class ContentChanged(SourceFailed):
    """The artifact is not the one that was begun; what came of it is worthless."""

    code = "content-changed"


class Interrupted(SourceFailed):
    """The connection broke off or stalled; the rest may come from another try."""

    code = "interrupted"


class Busy(UpdaterError):
    """The application may not be interrupted now."""

    code, exit_code = "busy", 9


class Cancelled(UpdaterError):
    """Somebody asked to stop, and everything is as it was before."""

    code, exit_code = "cancelled", 130


def _tree(base: type[UpdaterError]) -> dict[str, type[UpdaterError]]:
    found = {base.code: base}
    for child in base.__subclasses__():
        for code, kind in _tree(child).items():
            found.setdefault(code, kind)  # one without a code of its own stands for no other
    return found


def from_json(data: dict[str, Any]) -> UpdaterError:
    """The error that :meth:`UpdaterError.as_json` described. Of a code that only another version knows the exit code counts."""
    tree = _tree(UpdaterError)
    same_exit = (kind for kind in tree.values() if kind.exit_code == data.get("exit_code"))
    kind = tree.get(str(data.get("code"))) or next(same_exit, UpdaterError)
    details = data.get("details")
    return kind(
        str(data.get("message", "unknown error")),
        details=[str(line) for line in details] if isinstance(details, list) else [],
        state=data.get("state"),
        advice=data.get("advice"),
    )
