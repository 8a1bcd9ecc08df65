"""The application's own settings across versions: TOML, YAML, JSON and .env files that people edit under ``shared/``.

A release brings defaults; what they have and the user's file has not is inserted into it, and nothing else of it changes.
``merging`` says how, one module per format where; ``comparing`` what became of each key; ``examples`` which of a release's
files are defaults for which of the user's; ``sets`` keeps what a release ran with; ``changing`` plans a deployment's part.
"""
