"""How load processes and their parent talk: pickles with their length in front, over pipes."""

from __future__ import annotations

import asyncio
import pickle
import struct
from typing import Any

_HEAD = struct.Struct(">Q")


def packed(message: Any) -> bytes:
    """A message as it is written."""
    body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return _HEAD.pack(len(body)) + body


async def read(stream: asyncio.StreamReader) -> Any:
    """The next message.

    Raises:
        asyncio.IncompleteReadError: the other side is gone.
    """
    (length,) = _HEAD.unpack(await stream.readexactly(_HEAD.size))
    return pickle.loads(await stream.readexactly(length))
