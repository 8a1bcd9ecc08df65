"""The REST API and the dashboard: parse, authorise, call :mod:`updater.operations`, render. Nothing is decided here.

Needs the extra ``dashboard``. Starlette on uvicorn: Starlette is all that is used of the larger frameworks built on it, and msgspec
checks bodies and describes itself as JSON Schema in a tenth of their memory (docs/decisions/web.md).
"""
