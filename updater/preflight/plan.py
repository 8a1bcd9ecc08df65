"""What is about to happen, as far as the checks need to know."""

from __future__ import annotations

from dataclasses import dataclass

from updater.preflight import Finding, failed, warning


@dataclass(frozen=True)
class Plan:
    """What is about to happen, as far as the checks need to know."""

    target: str | None
    """The release to put into service; None: not known (the source was not asked)."""
    installed: bool
    artifact_size: int | None
    force: bool = False
    kind: str = "deploy"
    """What is asked for: deploy, fetch, activate or rollback."""
    rebuild: bool = False
    forced: str = "updater deploy --force"
    """What a person types to have it all the same."""
    keep_config: bool = False
    """The settings stay as they are, although the release ran with others before."""
    thorough: bool = False
    """Somebody only wants to know: checks may take a second that a deployment should not."""

    @property
    def builds(self) -> bool:
        """Whether a release is fetched or an environment built."""
        return self.rebuild or not self.installed

    def problem(self, summary: str, remedy: str) -> Finding:
        """What bars a deployment, but neither one that is forced nor a way back."""
        return (warning if self.force or self.kind == "rollback" else failed)(summary, remedy)
