"""Processes of this computer, as the testbed ends them."""

from __future__ import annotations

import os
import signal
import subprocess

from testbed.processes import members


def test_those_of_a_group_are_its_members_until_they_have_ended() -> None:
    pair = ["sh", "-c", "sleep 60 & echo $!; wait"]
    with subprocess.Popen(pair, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout
        other = int(process.stdout.readline())
        assert sorted(members(process.pid)) == sorted([process.pid, other])
        assert process.pid not in members(os.getpgid(0))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert process.pid not in members(process.pid)
