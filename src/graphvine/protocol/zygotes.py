"""Which contexts share a zygote: those whose executors can be forked from the same process.

The worker starts one zygote for all of them, and the manager knows by the same rule which tasks wait for the
same one.
"""

from __future__ import annotations

import msgspec
import xxhash

from graphvine.protocol.messages import Context


def zygote_key(context: Context) -> str:
    """Equal for contexts whose executors can be forked from one zygote; "" for the base zygote."""
    if not (context.environment or context.variables or context.setup):
        return ""
    # A set-up may use the user's own modules; without one they are no part of the zygote.
    parts = (
        context.environment_name,
        context.variables,
        context.setup,
        context.modules * bool(context.setup),
        context.inputs,
    )
    return xxhash.xxh3_128_hexdigest(msgspec.msgpack.encode(parts))
