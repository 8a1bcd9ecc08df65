"""Every endpoint, from the OpenAPI document, which is made from the table that requests are routed by."""

from __future__ import annotations

from typing import Any

from updater.web import openapi

EVERYWHERE = {str(status) for status in openapi._ALWAYS} | {"400", "413", "415"}
"""Refusals that the text above the reference tells for all."""

Json = dict[str, Any]


def reference() -> str:
    """Every endpoint: what it does, takes, answers, and how it fails."""
    found = openapi.document()
    lines = []
    tag = ""
    for path, methods in sorted(found["paths"].items(), key=lambda it: (_tag(it[1]), 0)):
        for method, one in methods.items():
            if one["tags"][0] != tag:
                tag = one["tags"][0]
                lines += ["", f"### {tag.capitalize()}"]
            lines += ["", f"**`{method.upper()} {path}`** {one['summary']}", *_operation(one, found)]
    return "\n".join(lines[1:]) + "\n"


def _tag(methods: Json) -> int:
    tags = ["update", "releases", "system", "backups"]
    return tags.index(next(iter(methods.values()))["tags"][0])


def _operation(one: Json, found: Json) -> list[str]:
    lines = [""]
    takes = [
        _field(it["name"], it["schema"], False, found) + (" (a header)" if it["in"] == "header" else "")
        for it in one.get("parameters", ())
    ]
    if body := one.get("requestBody"):
        schema = body["content"]["application/json"]["schema"]
        whole = _resolved(schema, found)
        needed = whole.get("required", ())
        takes += [_field(name, it, name in needed, found) for name, it in whole["properties"].items()]
    lines += [f"- {it}" for it in takes]
    good = next(it for it in one["responses"] if it.startswith("2"))
    failures = [it for it in one["responses"] if not it.startswith("2") and it not in EVERYWHERE]
    ((kind, answer),) = one["responses"][good]["content"].items()
    names = list(_resolved(answer["schema"], found).get("properties", ()))
    told = " with " + ", ".join(f"`{it}`" for it in names) if names else ""
    or_else = f"; or {', '.join(failures)}" if failures else ""
    lines.append(f"- answers {good}{told or ('' if kind == 'application/json' else f', `{kind}`')}{or_else}")
    return lines


def _resolved(schema: Json, found: Json) -> Json:
    name = schema.get("$ref", "").rpartition("/")[2]
    return found["components"]["schemas"][name] if name else schema


def _field(name: str, schema: Json, needed: bool, found: Json) -> str:
    plain = _resolved(next((it for it in schema.get("anyOf", ()) if it.get("type") != "null"), schema), found)
    kind = plain.get("type", "")
    if kind == "array":
        inner = plain["items"].get("enum")
        kind = "list of " + (", ".join(f"`{it}`" for it in inner) if inner else f"{plain['items']['type']}s")
    about = schema.get("description") or plain.get("description") or ""
    return f"`{name}` ({kind}{', required' if needed else ''})" + (f": {about}" if about else "").rstrip(".")
