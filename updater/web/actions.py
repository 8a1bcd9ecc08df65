"""What a page can ask for: each with the question that is asked first, and the endpoint of the API that does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from updater.layout import Layout
from updater.web import views
from updater.web.api import ENDPOINTS, Endpoint
from updater.web.problems import Refused

Json = dict[str, Any]
_BY_PATH = {one.path: one for one in ENDPOINTS if one.method == "POST"}
_FLAGS = ("force", "replace", "keep_config", "restore_data", "all")


@dataclass(frozen=True)
class Action:
    """``asks``: what will happen, in sentences, before it is done. ``back``: where the browser goes afterwards; ``shows``: its
    answer is shown instead. ``last_resort``: it is not for everyday use, and the button says so."""

    endpoint: Endpoint
    title: str
    button: str
    asks: Callable[[Layout, Any], list[str]]
    back: str = "/"
    shows: bool = False
    last_resort: bool = False

    def read(self, fields: Mapping[str, str]) -> Any:
        """The form's fields as the endpoint's type.

        Raises:
            Refused: they do not fit.
        """
        given: Json = {name: value for name, value in fields.items() if value != ""}
        given |= {name: given[name] in ("on", "true", "1") for name in _FLAGS if name in given}
        for name in ("parts", "processes"):
            if name in given:
                given[name] = given[name].split(",")
        try:
            return msgspec.convert(given, self.endpoint.takes, strict=False)
        except (msgspec.ValidationError, UnicodeError) as wrong:
            raise Refused(400, "usage", f"the form does not fit: {wrong}") from None

    def facts(self, layout: Layout, asked: Any) -> Json:
        return {**views.frame(layout), "sentences": self.asks(layout, asked)}

    def as_json(self, name: str) -> Json:
        return {
            "name": name, "title": self.title, "button": self.button, "back": self.back, "last_resort": self.last_resort,
        }  # fmt: skip


def _action(
    path: str, title: str, button: str, asks: Callable[[Layout, Any], list[str]], **more: Any
) -> Action:
    return Action(_BY_PATH[path], title, button, asks, **more)


ACTIONS = {
    "start": _action("/api/update/start", "Update", "Update now", views.before_update),
    "fetch": _action("/api/releases/fetch", "Install without activating", "Install", views.before_fetch),
    "rollback": _action("/api/update/rollback", "Roll back", "Roll back now", views.before_rollback),
    "activate": _action("/api/releases/activate", "Put a release into service", "Activate", views.before_activate),
    "cancel": _action("/api/update/cancel", "Cancel the deployment", "Cancel it", views.before_cancel),
    "restore": _action("/api/backups/restore", "Restore a backup", "Restore", views.before_restore),
    "backup": _action("/api/backups/create", "Back up", "Make a backup now", views.before_backup, back="/backups"),
    "verify-backup": _action("/api/backups/verify", "Verify a backup", "Verify", views.before_verify, back="/backups", shows=True),
    "verify": _action("/api/releases/verify", "Verify a release", "Verify", views.before_verify, back="/releases", shows=True),
    "pin": _action("/api/releases/pin", "Pin a release", "Pin", views.before_pin, back="/releases"),
    "unpin": _action("/api/releases/unpin", "Unpin a release", "Unpin", views.before_unpin, back="/releases"),
    "mark-bad": _action("/api/releases/mark-bad", "Mark a release bad", "Mark bad", views.before_mark_bad, back="/releases"),
    "prune": _action("/api/releases/prune", "Remove old releases", "Remove", views.before_prune, back="/releases", shows=True),
    "prune-backups": _action("/api/backups/prune", "Remove old backups", "Remove", views.before_prune_backups, back="/backups", shows=True),
    "start-processes": _action("/api/system/start", "Start", "Start", views.before_start),
    "stop-processes": _action("/api/system/stop", "Stop", "Stop", views.before_stop),
    "restart": _action("/api/system/restart", "Restart", "Restart", views.before_restart),
    "recover": _action("/api/system/recover", "Recover", "Recover now", views.before_recover, shows=True),
    "hold": _action("/api/system/hold", "Hold updates", "Hold", views.before_hold),
    "release-hold": _action("/api/system/release-hold", "Release the hold", "Release it", views.before_release_hold),
    "force-stop": _action("/api/system/force-stop", "Force stop", "Kill every process", views.before_force_stop, shows=True, last_resort=True),
    "unlock": _action("/api/system/unlock-update", "Unlock", "End it by force", views.before_unlock, shows=True, last_resort=True),
}  # fmt: skip
