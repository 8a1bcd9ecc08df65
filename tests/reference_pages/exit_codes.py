"""Every exit code, and the errors that lead to it."""

from __future__ import annotations

import inspect

from updater.errors import EXIT_CODES, UpdaterError, _tree


def reference() -> str:
    kinds = list(_tree(UpdaterError).values())
    lines = ["| code | meaning |", "| ---: | --- |"]
    lines += [f"| [{code}](#exit-code-{code}) | {it.meaning} |" for code, it in EXIT_CODES.items()]
    for code, it in EXIT_CODES.items():
        lines += ["", f"## Exit code {code}", "", f"{it.meaning[0].upper()}{it.meaning[1:]}.", ""]
        lines += [f"- The state: {it.state}", f"- What to do: {it.advice}"]
        lines += [f"- `{kind.code}`: {_about(kind)}" for kind in kinds if kind.exit_code == code]
    return "\n".join(lines) + "\n"


def _about(kind: type[UpdaterError]) -> str:
    if kind is UpdaterError:
        return "A defect of updater, or a deployment's process that has died."
    return " ".join(inspect.cleandoc(kind.__doc__ or "").split()).replace("``", "`")
