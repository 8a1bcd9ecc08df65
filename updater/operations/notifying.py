"""Try the messages to people."""

from __future__ import annotations

from typing import Any

from updater import notifications, records
from updater.deployment import announcing
from updater.errors import PreflightFailed, UsageError
from updater.notifications import messages
from updater.operations import Root

Json = dict[str, Any]


def send_test(root: Root) -> Json:
    """Send a test message to every service, whatever events are wanted. It takes ``[notify] timeout`` seconds at most.

    Returns ``services`` (``service``, ``ok``, ``problem``), ``problems`` with the configuration, and ``ok``: every service has
    taken it. No address is in it.

    Raises:
        UsageError: nothing is configured, or no address is to be had.
        PreflightFailed: the library is not installed.
    """
    config = root.config.notify
    if not config.configured:
        raise UsageError(
            "nobody is to be told of anything: [notify] in updater.toml names no address",
            state="Nothing was sent.",
            advice='write [notify] urls = ["ntfy://TOPIC"], or urls_env or urls_file.',
        )
    urls, problems = notifications.targets(config)
    if not urls:
        raise UsageError(
            "there is no address to send to",
            details=problems,
            state="Nothing was sent.",
            advice="correct [notify] in updater.toml.",
        )
    if not notifications.installed():
        raise PreflightFailed(
            "the library apprise is not installed",
            state="Nothing was sent.",
            advice=f"install it beside updater: {notifications.REMEDY}",
        )
    message = messages.a_test(announcing.about_of(root.layout, root.config))
    sending = notifications.send(config, message.event, message.title, message.body)
    for problem in sending.all_problems():
        records.log(root.layout, f"warning: notify: the test: {problem}")
    return {
        "services": [
            {"service": it.service, "ok": not it.problem, "problem": it.problem or None}
            for it in sending.services
        ],
        "problems": sending.problems,
        "ok": bool(sending.services) and all(not it.problem for it in sending.services),
    }
