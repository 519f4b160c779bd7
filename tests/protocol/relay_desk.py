"""A desk to drive a RelayCore by hand: a clock, and what each connection has been sent."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from typing import Any

from calllab.protocol import Close, CloseCode, Connection, Deliver, Output, RelayCore, RelayLimits


class Desk:
    """A relay core whose outputs are done at once: frames go to inboxes, closes are noted."""

    def __init__(self, *users: str, limits: RelayLimits | None = None) -> None:
        self.users = set(users)
        self.now = 0.0
        self.core = RelayCore(knows_user=self.users.__contains__, entropy=random.Random(7), limits=limits)
        self.closed: dict[Connection, CloseCode] = {}
        self._frames: dict[Connection, list[bytes]] = {}

    def connect(self, user: str, device: str | None = None, session: object = None) -> Connection:
        """Connect one socket."""
        connection, outputs = self.core.connect(user, device, self.now, session=session)
        self._frames[connection] = []
        self.do(outputs)
        return connection

    def send(self, sender: Connection, kind: str, recipient: str = "bob", **fields: Any) -> None:
        """Send one message from a connection."""
        self.send_frame(sender, json.dumps({"type": kind, "recipientId": recipient, **fields}).encode())

    def send_frame(self, sender: Connection, frame: bytes) -> None:
        """Send any bytes from a connection."""
        self.do(self.core.receive(sender, frame, self.now))

    def do(self, outputs: Iterable[Output]) -> None:
        """Do the outputs of the core."""
        for output in outputs:
            assert output.connection not in self.closed, "an output for a connection that was closed"
            if isinstance(output, Deliver):
                self._frames[output.connection].append(output.frame)
            else:
                assert isinstance(output, Close)
                assert len(output.reason.encode()) <= 123, "a close frame has no room for more"
                self.closed[output.connection] = output.code

    def read(self, connection: Connection) -> list[dict[str, Any]]:
        """Empty a connection's inbox, and tell the core that its bytes have left."""
        frames = self._frames[connection]
        self._frames[connection] = []
        self.core.flushed(connection, sum(map(len, frames)))
        return [json.loads(frame) for frame in frames]

    def unread_bytes(self, connection: Connection) -> int:
        """Count what is in a connection's inbox."""
        return sum(map(len, self._frames[connection]))
