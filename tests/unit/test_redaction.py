"""What is secret goes, in whatever form it is written, and what is not stays readable."""

from __future__ import annotations

import json
import time
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from updater.redaction import BLANK, Redactor, is_secret, secrets_in_text, secrets_of

SECRETS = st.text(st.characters(codec="utf-8", exclude_characters="\n\r\0"), min_size=6, max_size=40).filter(
    lambda it: it.strip() == it and it not in BLANK
)


@settings(deadline=None)
@given(SECRETS, st.text(max_size=40), st.text(max_size=40))
def test_a_known_secret_never_comes_through(secret: str, before: str, behind: str) -> None:
    redactor = Redactor([secret])
    for written in (
        secret,
        json.dumps(secret),
        json.dumps(secret, ensure_ascii=False),
        quote(secret, safe=""),
    ):
        assert secret not in redactor.text(f"{before}{written}{behind}").replace(before + behind, "")
        assert written.strip('"') not in redactor.text(f"<{written}>")
    told = json.dumps(redactor.data({"a": [secret, {secret: f"x{secret}y"}], "token": 5}))
    assert secret not in json.loads(told)["a"][0] and BLANK in told


@pytest.mark.parametrize(
    ("text", "gone", "stays"),
    [
        ("GITHUB_TOKEN=abc123", "abc123", "GITHUB_TOKEN="),
        ('api_key = "k-1 2" # comment', "k-1 2", "# comment"),
        ('{"password": "p\\"q", "port": 80}', 'p\\"q', '"port": 80'),
        ("secret: 'it''s'\nuser: me", "it", "user: me"),
        ("postgresql://bot:s3cr3t@db/trades", "s3cr3t", "@db/trades"),
        ("postgres://bot:p@ss@db/trades", "ss", "@db/trades"),
        ("postgres://bot:pa/ss@db/trades", "ss", "@db/trades"),
        ("DB_PASSWORD=hunter,two;three rest", "two", " rest"),
        ("mysqldump --password hunter2 trades", "hunter2", " trades"),
        ('["pg_dump", "--password", "hunter2"]', "hunter2", "pg_dump"),
        ("curl -u bot:hunter2 http://x/", "hunter2", "bot:"),
        ("Set-Cookie: sid=abcd; id=efgh", "efgh", ""),
        ("GET http://127.0.0.1:80/x?token=abcdef&page=2", "abcdef", "page=2"),
        ('{"url": "https://db/x?password=abcdef"}', "abcdef", "https://db/x"),
        ("key=abc&token:=x", "abc", "***"),
        ("GET /x?token=abcdef&page=2", "abcdef", "page=2"),
        ("Authorization: Bearer abc.def-ghi", "abc.def-ghi", "Authorization: "),
        ("curl -H 'authorization: Basic dXNlcjpwYXNz'", "dXNlcjpwYXNz", "curl"),
        ("pushed with ghp_" + "a1B2" * 9, "ghp_a1B2", "pushed with"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "eyJzdWIi", ""),
        ("123456789:" + "A1b2C" * 7, "A1b2C", ""),
        ("-----BEGIN EC PRIVATE KEY-----\nMHcCAQ\n-----END EC PRIVATE KEY-----\nafter", "MHcCAQ", "after"),
        ("A" * 64 + "\nQUJD\n-----END RSA PRIVATE KEY-----\nafter", "QUJD", "after"),
    ],
)
def test_what_looks_like_a_secret_goes(text: str, gone: str, stays: str) -> None:
    found = Redactor().text(text)
    assert gone not in found and stays in found and BLANK in found


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-05T00:00:00Z v1.4.0 is in service (9.4 s, interrupted for 1.1 s)",
        "sha256:e9a35b0ba5785ce20aad98ec907307e58c0f78e0ea32cd6dbc581b0eeafd8e0e",
        'command = ["python", "-m", "bot"]',
        "http://127.0.0.1:8080/health answered 200",
        'File "/srv/bot/releases/v1.2.0/dashboard/__main__.py", line 17, in <module>',
        "KeyError: 'exchange'",
        "GET http://127.0.0.1:8080/mail?to=me@home",
        "python -u serve.py: true",
    ],
)
def test_what_is_none_stays(text: str) -> None:
    assert Redactor(["hunter2!", "true"]).text(text) == text


@pytest.mark.parametrize("line", ["A", "A" * 64 + "\n", "a@x://", "--a", "eyJa", "key='x "])
def test_a_log_of_a_megabyte_is_gone_through_once(line: str) -> None:
    """An image in base64 on one line kept a report for hours."""
    begun = time.process_time()
    Redactor(["hunter2!"]).text(line * (100_000 // len(line)))
    assert time.process_time() - begun < 20


def test_secrets_are_told_by_their_names() -> None:
    assert all(
        map(is_secret, ("GITHUB_TOKEN", "api-key", "exchange.secret", "DB_PASSWORD", "SESSION", "key"))
    )
    assert not any(map(is_secret, ("PATH", "keep", "monkey", "symbol", "passes", "port")))
    assert secrets_of({"API_KEY": "a1b2c3", "MODE": "paper"}) == ["a1b2c3"]
    assert {"abc", "1234"} <= {*secrets_in_text('name = "me"\nsecret = "abc"\nPIN=1234\n')}
    assert "me" not in {*secrets_in_text('name = "me"\nsecret = "abc"')}
