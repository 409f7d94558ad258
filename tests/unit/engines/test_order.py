"""What the hive writes for the launcher, by way of systemd's environment file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.engines.order import WAIT_MAX, Order, read_order, read_wait, waiting

ORDER = Order(
    name="bee",
    engine="test",
    argv=("/bin/x", 'a "b" $c `d` \\e', "ü\n"),
    environment=(("A", "1 2"),),
    model=Path("/run/rbee-worker/bee-1/model"),
    path="/srv/a b/ü'\".gguf",
    socket=Path("/run/rbee-worker/bee-1/engine.sock"),
    ready="/health",
    size=7,
    job_id="7" * 32,
)


def read_as_systemd(content: bytes) -> dict[str, str]:
    """As load_env_file() of systemd 252 reads lines of NAME="VALUE"."""
    variables = {}
    for line in content.decode("ascii").splitlines():
        name, _, quoted = line.partition("=")
        assert quoted[0] == quoted[-1] == '"'
        value, rest = "", quoted[1:-1]
        while rest:
            if rest[0] == "\\" and rest[1] in '"\\`$':
                rest = rest[1:]
            else:
                assert rest[0] not in '"\\'
            value, rest = value + rest[0], rest[1:]
        variables[name] = value
    return variables


def test_an_order_comes_back_from_the_file() -> None:
    assert read_order(read_as_systemd(ORDER.content())) == ORDER


@given(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")))
def test_whatever_a_path_and_a_word_have_in_them(path: str, word: str) -> None:
    order = Order("bee", "test", ("/bin/x", word), (), Path("/m"), path, Path("/s"), "/health")

    assert read_order(read_as_systemd(order.content())) == order


@pytest.mark.parametrize("change", [{"RBEE_ARGV": "[]"}, {"RBEE_ARGV": "{"}, {"RBEE_BYTES": "x"}])
def test_an_environment_of_somebody_else_is_refused(change: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_order(read_as_systemd(ORDER.content()) | change)
    with pytest.raises(KeyError):
        read_order({})


@pytest.mark.parametrize(("seconds", "read"), [(0, 0), (6, 6), (-1, 0), (3600, WAIT_MAX)])
def test_the_wait_comes_back_and_is_bounded(seconds: int, read: int) -> None:
    assert read_wait(read_as_systemd(waiting(seconds))) == read
    assert read_wait({}) == 0
