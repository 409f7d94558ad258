"""The network of a bridge, as far as it needs no machine."""

from __future__ import annotations

import json

import pytest
from testbed.bridge import _free_network


def test_a_bridge_takes_no_network_that_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {
        "address": [
            {"ifname": "lo", "addr_info": [{"local": "127.0.0.1", "prefixlen": 8}]},
            {"ifname": "docker0", "addr_info": [{"local": "10.1.2.1", "prefixlen": 24}]},
            {},
        ],
        "route": [
            {"dst": "default", "gateway": "192.0.2.1"},
            {"dst": "10.7.0.0/16"},
            {"type": "local", "dst": "10.1.9.1"},
        ],
    }
    monkeypatch.setattr("testbed.bridge.ip", lambda *words: json.dumps(told[words[2]]))
    draws = iter([1, 2, 7, 200, 1, 9, 1, 3])
    monkeypatch.setattr("testbed.bridge.secrets.randbelow", lambda below: next(draws))
    assert str(_free_network()) == "10.1.3.0/24"
