"""Every key of updater.toml, from the one list that checks it and that `updater init` writes."""

from __future__ import annotations

from updater.configkeys import ABOUT, DUMP, PROBE, PROCESS, SECTIONS, Key
from updater.template import EXAMPLES_SHARED


def reference() -> str:
    lines = []
    for section, keys in SECTIONS.items():
        lines += _section(f"[{section}]", ABOUT[section], keys)
        if section == "releases":
            lines += [
                "",
                "## [shared]",
                "",
                ABOUT["shared"],
                "",
                "```toml",
                "[shared]",
                *EXAMPLES_SHARED,
                "```",
            ]
        if section == "environment":
            lines += _section("[processes.NAME]", ABOUT["processes"], PROCESS)
            lines += _section("[[processes.NAME.probes]]", ABOUT["probes"], PROBE)
        if section == "backup":
            lines += _section("[backup.dumps.NAME]", ABOUT["dumps"], DUMP)
    return "\n".join(lines[1:]) + "\n"


def _section(title: str, about: str, keys: tuple[Key, ...]) -> list[str]:
    return ["", f"## {title}", "", about, "", *map(_key, keys)]


def _key(key: Key) -> str:
    default = f"default `{key.default}`" if key.default is not None else "no default"
    example = (
        f" For example `{key.name} = {key.example}`" if key.example and key.example != key.default else ""
    )
    return f"- **`{key.name}`** ({key.read.words}; {default}): {key.doc}{example}"
