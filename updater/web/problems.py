"""Errors as ``application/problem+json`` (RFC 9457), with the codes and the advice of the command line."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse

from updater import errors
from updater.errors import UpdaterError
from updater.web.secrecy import blank

MEDIA_TYPE = "application/problem+json"

STATUS: dict[type[UpdaterError], int] = {
    errors.NotFound: 404,
    errors.NotARoot: 503,
    errors.UsageError: 409,
    errors.LockHeld: 409,
    errors.Busy: 409,
    errors.PreflightFailed: 409,
    errors.Cancelled: 409,
    errors.VerificationFailed: 409,
    errors.DeploymentFailed: 409,
    errors.StorageFailed: 507,
    errors.ReleaseNotFound: 404,
    errors.RateLimited: 503,
    errors.SourceFailed: 502,
    errors.UpdaterError: 500,
}
"""The status of an error; of one that is not here, that of its nearest base."""


class Refused(UpdaterError):
    """A request that HTTP itself is the reason to refuse."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        advice: str | None = None,
        headers: dict[str, str] | None = None,
    ):
        super().__init__(message, state="Nothing was changed.", advice=advice)
        self.status = status
        self.refusal = code
        self.headers = headers or {}


def status_of(error: UpdaterError) -> int:
    if isinstance(error, Refused):
        return error.status
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def problem(error: UpdaterError) -> dict[str, Any]:
    """The error as a problem: ``type`` and ``code`` are stable, ``detail`` says it in a line, ``advice`` what to do next."""
    code = error.refusal if isinstance(error, Refused) else error.code
    found: dict[str, Any] = {
        "type": f"urn:updater:{code}",
        "title": code.replace("-", " "),
        "status": status_of(error),
        "detail": error.message,
        "code": code,
        "details": error.details,
        "state": error.state,
        "advice": error.advice,
    }
    if not isinstance(error, Refused):
        found["exit_code"] = error.exit_code
    return found


def response(error: UpdaterError) -> JSONResponse:
    headers = error.headers if isinstance(error, Refused) else {}
    return JSONResponse(blank(problem(error)), status_of(error), headers, media_type=MEDIA_TYPE)
