"""The command line. Each command parses, loads settings, calls one flow and prints where the result is."""

from __future__ import annotations

# Importing a module of commands adds them to the app, in the order that `--help` shows.
# isort: off
from flows.commands import study, promotion, associate, model, records, data
from flows.commands.options import app
# isort: on

__all__ = ["app", "associate", "data", "model", "promotion", "records", "study"]

if __name__ == "__main__":
    app()
