"""Which ports `pdk up` takes where the usual ones are taken."""

import contextlib
import dataclasses
import socket

from pdk.installation import Ports
from pdk.local.up import choose_ports


def test_replacements_are_all_different():
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in dataclasses.fields(Ports)]
        for one in held:
            one.bind(("127.0.0.1", 0))
            one.listen()
        wanted = Ports(*(one.getsockname()[1] for one in held))
        said = []
        for _ in range(200):
            chosen = dataclasses.astuple(choose_ports("127.0.0.1", wanted, fixed=(), say=said.append))
            assert len(set(chosen)) == len(chosen)
            assert not set(chosen) & set(dataclasses.astuple(wanted))
    assert len(said) == 200 * len(chosen)
