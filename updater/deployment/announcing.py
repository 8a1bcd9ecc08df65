"""Tells people how deployments ended (``[notify]``), once everything is on record and nobody holds the lock any more.

It decides nothing and fails nothing: a message that cannot be sent is a line in ``update.log``. One that a kill prevents is lost.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from updater import records
from updater.errors import RollbackFailed, UpdaterError
from updater.layout import Layout

if TYPE_CHECKING:
    from updater.config import Config
    from updater.notifications import Sending
    from updater.notifications.messages import About, Message

Json = dict[str, Any]


class Announcement:
    """What has happened and is to be told; nothing is sent before :meth:`send`. ``config`` None: not read yet, so nobody is told."""

    def __init__(self, layout: Layout, config: Config | None = None) -> None:
        self.layout = layout
        self.config = config
        self.ends: list[Json] = []
        """Records of deployments that have ended, in order."""
        self.failure: tuple[UpdaterError, str, str] | None = None
        """Why something did not even begin; its kind and its origin."""

    def send(self) -> None:
        """Send a message for each; it takes as long as ``[notify] timeout`` for each at most. Never raises."""
        if self.config is None or not self.config.notify.configured or not (self.ends or self.failure):
            return
        from updater.notifications import messages

        about = about_of(self.layout, self.config)
        found = [messages.of_record(about, it) for it in self.ends]
        if self.failure is not None:
            found.append(messages.of_error(about, *self.failure))
        for message in found:
            if message is not None:
                deliver(self.layout, self.config, message)


def about_of(layout: Layout, config: Config) -> About:
    """Of what application, machine and directory messages are."""
    import platform

    from updater.notifications.messages import About

    return About(config.name, platform.node() or "this machine", str(layout.root))


def deliver(layout: Layout, config: Config, message: Message) -> Sending | None:
    """Send one message, if its event is wanted, without any secret that is known here; problems go to ``update.log``.

    None: nobody wants to hear of it. Never raises.
    """
    from updater import notifications, redaction
    from updater.settings import secrets

    if not notifications.wanted(config.notify, message.event):
        return None
    try:
        safe = message.without_secrets(redaction.Redactor(secrets.known(layout, config)))
        sending = notifications.send(config.notify, safe.event, safe.title, safe.body)
    except Exception as failure:  # a message is worth no deployment; nor may its text get into a log
        records.log(
            layout, f"warning: notify: the message {message.event!r} was not sent: {type(failure).__name__}"
        )
        return None
    for problem in sending.all_problems():
        records.log(layout, f"warning: notify: the message {message.event!r}: {problem}")
    told = [it.service for it in sending.services if not it.problem]
    if told:
        records.log(layout, f"notified of {message.event!r}: {', '.join(told)}")
    return sending


@contextlib.contextmanager
def of_recoveries(layout: Layout, config: Config) -> Iterator[list[Any]]:
    """Take up what becomes of interrupted deployments (outcomes), and tell it at the end: put it around the lock."""
    outcomes: list[Any] = []
    told = Announcement(layout, config)
    try:
        yield outcomes
    except RollbackFailed as failure:
        if all(failure is not it.error for it in outcomes):  # its record tells of it
            told.failure = (failure, "recover", "")
        raise
    finally:
        told.ends += records_of(outcomes)
        told.send()


def records_of(outcomes: Iterable[Any]) -> list[Json]:
    return [it.record for it in outcomes if not it.told]
