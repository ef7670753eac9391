"""One of two processes that promote at the same time: it reads a version, waits for the word, and decides."""

from __future__ import annotations

import sys
from pathlib import Path

from infra.decisions import ChampionChanged, Draft, append, read_chain
from infra.settings import load_settings
from infra.storage import Store


def main() -> None:
    """Answer each line of a version with `ready`, each `go` with what came of it; `told` has the registry follow."""
    model, with_registry = sys.argv[1], sys.argv[2] == "registry"
    settings = load_settings()
    store = Store(settings.store, Path(settings.cache))
    if with_registry:
        from infra import tracking
        from infra.promotion import follow

        client = tracking.connect(settings)
    for line in sys.stdin:
        chain = read_chain(store, settings, model)
        print("ready", flush=True)
        sys.stdin.readline()
        candidate = {"version": line.strip(), "run_id": "none"}
        try:
            append(store, chain, Draft("promoted", line.strip(), "faster", candidate), "2026-01-01T00:00:00+00:00")
            said = "won"
        except ChampionChanged as error:
            said = f"lost: {error}"
        if with_registry:
            follow(client, store, settings, model)
        print(said, flush=True)


if __name__ == "__main__":
    main()
