"""F08: a deployment that a service started is not killed with the service."""

from __future__ import annotations

import pytest

from updater import apart

SCOPE = ["--scope", "--quiet", "--collect", "--"]


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("0::/system.slice/updater.service\n", "/system.slice/updater.service"),
        ("12:cpu:/x\n1:name=systemd:/system.slice/bot.service\n", "/system.slice/bot.service"),
        ("0::/\n1:name=systemd:/system.slice/bot.service\n", "/system.slice/bot.service"),
        ("0::/a:b.service\n", "/a:b.service"),
        ("0::/\n", "/"),
        ("", ""),
        ("rubbish\n::\n", ""),
    ],
)
def test_the_control_group_is_read_as_the_kernel_writes_it(text: str, group: str) -> None:
    assert apart.control_group(text) == group


@pytest.mark.parametrize(
    ("group", "words"),
    [
        ("/system.slice/updater.service", ["systemd-run", *SCOPE]),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/updater.service",
            ["systemd-run", "--user", *SCOPE],
        ),
        ("/user.slice/user-1000.slice/session-3.scope", []),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/app-terminal.scope", []),
        ("/docker/0123abcd", []),
        ("/", []),
        ("", []),
    ],
)
def test_only_what_is_in_a_service_is_given_a_scope_of_its_own(group: str, words: list[str]) -> None:
    assert apart.words(group) == words
