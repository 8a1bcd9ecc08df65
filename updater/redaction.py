"""Blanks secrets out of text that leaves this machine.

Two ways together: values that are known to be secret (by the name of the variable or key that holds them) go wherever they appear;
and what has the form of a secret goes even if nobody told that it is one.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus, unquote

BLANK = "***"

_NAMES = re.compile(
    r"token|secret|passw(or)?d|passwd|passphrase|pwd|api_?key|apikey|private|credential|auth|cookie|session|dsn|salt|signature"
    r"|(^|[_.-])(key|pass|pin|pw|seed|mnemonic)s?$|access_?key|webhook",
    re.IGNORECASE,
)
"""Names whose values are secret; a public one too many is no harm."""

_PUBLIC = re.compile(
    r"PWD|OLDPWD|XAUTHORITY|SSH_AUTH_SOCK|DESKTOP_SESSION|GDMSESSION|SESSION_MANAGER|DBUS_SESSION_BUS_ADDRESS|XDG_SESSION_\w+|GIT_AUTHOR_\w+"
)
"""Variables of every shell and desktop that only sound secret: the working directory, or `user`, would go wherever they appear."""

_SHORT = 4
"""Characters below which a value is not looked for elsewhere: `1` or `yes` would blank out everything."""

_PLAIN = frozenset(("true", "false", "null", "none", "yes"))
"""What a setting such as ``auth = true`` holds is no secret."""

_URL = re.compile(
    r"(?P<scheme>\b[a-z][a-z0-9+.-]{0,20}://)"
    r"(?P<user>[^/\s'\"<>]{1,256}|[^/\s'\"<>:@]{0,64}:(?!\d+[/?#])[^\s'\"<>@]{1,256})@",
    re.IGNORECASE,
)
"""People put passwords with ``@`` and ``/`` in without escaping them; a port is none."""

_FORMS = re.compile(
    r"gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}|xox[abprs]-[A-Za-z0-9-]{10,}"
    r"|(?:sk|pk|rk)[-_](?:live|test|proj|ant)[-_][A-Za-z0-9_-]{16,}|AKIA[0-9A-Z]{16}|AIza[0-9A-Za-z_-]{35}"
    r"|(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]*|\b\d{8,10}:[A-Za-z0-9_-]{35}\b"
    r"|(?<![A-Za-z0-9+/=])(?:[A-Za-z0-9+/=]{40,}+\s++){1,200}+(?:[A-Za-z0-9+/=]+\s+)?-----END [A-Z ]*PRIVATE KEY-----"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    re.DOTALL,
)
"""GitHub, GitLab, Slack, Stripe and others, AWS, Google, JSON Web Tokens (RFC 7519), Telegram's bots, PEM keys (RFC 7468).

Here and below nothing is looked for twice at one place, or without an end: a log may be one line of a megabyte."""

_HEADER = re.compile(
    r"(?P<name>\b(?:(?:proxy-)?authorization|(?:set-)?cookie)['\"]?\s*[:=]\s*['\"]?)(?P<value>[^\r\n'\"]+)"
    r"|(?P<scheme>\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}",
    re.IGNORECASE,
)

_FLAG = re.compile(
    r"""(?P<flag>--(?P<name>[a-z][a-z0-9_-]{0,40})["']?(?:\s*,\s*|[^\S\n]+)["']?)(?!-)(?P<value>[^\s"',]+)"""
    r"""|(?P<user>(?:(?<=\s)|(?<=["'])|^)(?:-u|--user)["']?(?:\s*,\s*|[^\S\n]+)["']?[^\s"':]{1,64}:)[^\s"',]+""",
    re.IGNORECASE | re.MULTILINE,
)
"""``--password value`` and ``-u user:value`` on a command line, or in a list of its words."""

_NAME = re.compile(r"""(?P<q>["']?)(?P<name>[A-Za-z0-9_][A-Za-z0-9_.-]{0,63})(?P=q)[^\S\n]*[:=][^\S\n]*""")
_VALUE = re.compile(
    r""""(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|[^\s,;&"'{}\[\]]+(?:[,;"']+[^\s,;&"'{}\[\]]+)*"""
)
"""``name = "value"``, ``"name": "value"``, ``NAME=value``, ``?name=value``."""

_LINE = re.compile(
    r"""^[^\S\n]*(?:-[^\S\n]+)?(?:export[^\S\n]+)?(?P<q>["']?)(?P<name>[A-Za-z0-9_][A-Za-z0-9_.-]{0,63})(?P=q)[^\S\n]*[:=](?P<value>[^\n]+)$""",
    re.MULTILINE,
)
"""A setting on a line of its own: without quotes its value is all that follows."""


def is_secret(name: str) -> bool:
    """Whether a variable or key of that name holds a secret."""
    return _NAMES.search(name) is not None


def secrets_in_text(text: str) -> Iterator[str]:
    """The values that settings in any common form (TOML, YAML, JSON, INI, .env) hold under names of secrets."""
    for start, end in _values(text):
        yield unquoted(text[start:end])
    for found in _LINE.finditer(text):
        if is_secret(found["name"]):
            yield found["value"].strip()
            yield re.sub(r"\s+[#;].*", "", found["value"]).strip()
    for found in _URL.finditer(text):
        if password := found["user"].partition(":")[2]:
            yield password
            yield unquote(password)


def _values(text: str) -> Iterator[tuple[int, int]]:
    """Where the values of secret names stand, also inside of another value: ``"url": "http://host/?token=..."``."""
    done = 0
    for found in _NAME.finditer(text):
        if found.start() >= done and is_secret(found["name"]) and (value := _VALUE.match(text, found.end())):
            done = value.end()
            yield value.span()


def unquoted(value: str) -> str:
    """A value as it stands in a file, without its quotes and what they need inside."""
    if value[:1] == '"':
        with contextlib.suppress(ValueError):
            return str(json.loads(value))
    return value[1:-1] if value[:1] in ('"', "'") else value


def secrets_of(environment: Mapping[str, str]) -> list[str]:
    """The values of variables whose names say that they are secret."""
    return [value for name, value in environment.items() if is_secret(name) and not _PUBLIC.fullmatch(name)]


_LISTED = re.compile(
    r"""^[ \t]*(?:notify\.)?urls[ \t]*=[ \t]*\[|[{,][ \t]*urls[ \t]*=[ \t]*\[""", re.MULTILINE
)
_QUOTED = re.compile(r""""((?:\\.|[^"\\\n])*)"|'([^'\n]*)'""")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"',\]]+")


def addresses_in_toml(text: str) -> set[str]:
    """The addresses of message services in the text of a configuration (``urls = [...]``), which may be broken."""
    found = set()
    for listed in _LISTED.finditer(text):
        rest = text[listed.end() :]
        end = re.search(r"^[ \t]*\[{1,2}[A-Za-z]|^[ \t]*[A-Za-z_.]+[ \t]*=", rest, re.MULTILINE)
        block = rest[: end.start()] if end else rest
        found |= {unquoted(it[0]) for it in _QUOTED.finditer(block)}
        found |= {it[0] for it in _ADDRESS.finditer(block)}
    return found


def secrets_of_urls(urls: Iterable[str], *, shortest: int = 12) -> set[str]:
    """Addresses whose every part may be a password, whole and in parts of at least ``shortest`` characters."""
    parts = {part for url in urls for part in re.split(r"[/?&=@:#,]+", url.partition("://")[2])}
    return {*urls, *(it for part in parts for it in (part, unquote(part)) if len(it) >= shortest)}


class Redactor:
    """Blanks out known secrets, and what looks like one."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        forms = {form for it in known for form in _forms(it) if _is_telling(form)}
        longest_first = sorted(forms, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if forms else None

    def text(self, text: str) -> str:
        """The text without them."""
        if self._known:
            text = self._known.sub(BLANK, text)
        text = _FORMS.sub(BLANK, text)
        text = _URL.sub(lambda found: f"{found['scheme']}{BLANK}@", text)
        text = _HEADER.sub(lambda found: f"{found['name'] or found['scheme']}{BLANK}", text)
        text = _FLAG.sub(_blank_flag, text)
        return _without_values(text)

    def data(self, data: Any) -> Any:
        """The same for what becomes JSON: values of secret names go whole, texts are gone through."""
        if isinstance(data, Mapping):
            return {
                self.text(str(name)): BLANK if is_secret(str(name)) and holds(value) else self.data(value)
                for name, value in data.items()
            }
        if isinstance(data, (list, tuple)):
            return [self.data(it) for it in data]
        return self.text(data) if isinstance(data, str) else data


def holds(value: object) -> bool:
    """Whether a value can be a secret at all."""
    return value not in (None, "", True, False) and value != [] and value != {}


def _without_values(text: str) -> str:
    pieces, done = [], 0
    for start, end in _values(text):
        quote_mark = text[start] if text[start] in "\"'" else ""
        pieces += [text[done:start], quote_mark, BLANK, quote_mark]
        done = end
    return "".join([*pieces, text[done:]])


def _blank_flag(found: re.Match[str]) -> str:
    if found["user"]:
        return f"{found['user']}{BLANK}"
    return f"{found['flag']}{BLANK}" if is_secret(found["name"]) else found[0]


def _is_telling(form: str) -> bool:
    return len(form) >= _SHORT and form.lower() not in _PLAIN and not set(form) <= set(BLANK)


def _forms(secret: str) -> set[str]:
    """How a secret is written in JSON, in a URL, and each of its lines."""
    lines = [line.strip() for line in secret.splitlines() if len(line.strip()) >= 2 * _SHORT]
    plain = {secret, secret.strip(), *lines}
    written = (
        json.dumps,
        lambda it: json.dumps(it, ensure_ascii=False),
        lambda it: f"'{quote(it, safe='')}'",
        _plus,
    )
    return plain | {write(it)[1:-1] for it in plain for write in written}


def _plus(text: str) -> str:
    return f"'{quote_plus(text)}'"
