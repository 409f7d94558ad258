"""Who is at the other end of a socket."""

from __future__ import annotations

import socket
import sys
from typing import cast

from rbee.server.peer import Peer, peer_at


def test_a_user_of_a_directory_has_a_number_above_2_to_the_31() -> None:
    class Channel:
        def getsockopt(self, level: int, option: int, size: int) -> bytes:
            assert (level, option, size) == (socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            return (42).to_bytes(4, sys.byteorder) + (3420080244).to_bytes(4, sys.byteorder) * 2

    assert peer_at(cast(socket.socket, Channel())) == Peer(42, 3420080244, 3420080244)
