"""Somebody hears of a failed run: through a Prefect notification block that the user has made and named."""

from __future__ import annotations

import inspect
import os
from typing import Any

from prefect.blocks.core import Block

BLOCK_VARIABLE = "PADFLOW_NOTIFY_BLOCK"


async def tell_of_failure(flow: Any, flow_run: Any, state: Any) -> None:
    """Send what failed and why to the block that `PADFLOW_NOTIFY_BLOCK` names, as `slack-webhook/ops`."""
    name = os.environ.get(BLOCK_VARIABLE)
    if not name:
        return
    block: Any = await Block.aload(name)
    subject = f"padflow: {flow_run.name} {state.name.lower()}"
    body = f"{subject}\n{state.message or 'no reason is known'}\nFlow {flow.name}, run {flow_run.id}."
    sent = block.notify(body, subject)
    if inspect.isawaitable(sent):
        await sent


NOTIFYING: dict[str, Any] = {"on_failure": [tell_of_failure], "on_crashed": [tell_of_failure]}
