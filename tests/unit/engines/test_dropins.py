"""Engines in folders: which file counts, and how a wrong one is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from rbee.engines.dropins import ENGINES_MAX, SIZE_MAX, Found, load
from rbee.scope import user_scope

GOOD = "[Engine]\nExec=/bin/x %m\nFormats=gguf\n"


@pytest.fixture
def put(tmp_path: Path) -> Put:
    return Put(tmp_path)


class Put:
    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, path: str, text: str | bytes = GOOD) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    def load(self) -> Found:
        return load(root=self.root)


def test_without_a_folder_there_are_no_engines(put: Put) -> None:
    assert put.load() == Found({}, ())


def test_the_administrator_s_file_masks_that_of_the_package(put: Put) -> None:
    put("usr/lib/rbee/engines.d/a.conf")
    put("usr/lib/rbee/engines.d/b.conf")
    put("etc/rbee/engines.d/a.conf", GOOD.replace("/bin/x", "/opt/own"))
    put("etc/rbee/engines.d/README", "no engine")

    found = put.load()

    assert {name: one.command[0] for name, one in found.engines.items()} == {"a": "/opt/own", "b": "/bin/x"}
    assert found.problems == ()


@pytest.mark.parametrize("how", ["link", "empty"])
def test_a_link_to_dev_null_or_an_empty_file_masks_an_engine(put: Put, how: str) -> None:
    put("usr/lib/rbee/engines.d/a.conf")
    mask = put("etc/rbee/engines.d/a.conf", "")
    if how == "link":
        mask.unlink()
        mask.symlink_to("/dev/null")

    assert put.load() == Found({}, ())


def test_additions_are_read_after_the_file_by_their_names(put: Put) -> None:
    put("usr/lib/rbee/engines.d/a.conf")
    put("usr/lib/rbee/engines.d/a.conf.d/10-x.conf", "[Engine]\nReady=/package\n")
    put("usr/lib/rbee/engines.d/a.conf.d/30-y.conf", "[Engine]\nEnvironment=Y=1\n")
    put("etc/rbee/engines.d/a.conf.d/10-x.conf", "[Engine]\nReady=/own\nExec=\nExec=/opt/own\n")
    put("etc/rbee/engines.d/a.conf.d/20-z.conf", "[Engine]\nReady=/last\n")
    put("etc/rbee/engines.d/none.conf.d/10.conf", "[Engine]\nReady=/x\n")

    found = put.load()

    assert list(found.engines) == ["a"]
    engine = found.engines["a"]
    assert (engine.ready, engine.command, engine.environment) == ("/last", ("/opt/own",), (("Y", "1"),))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD + "Exec=x\n", "a.conf:4: Exec= must begin with an absolute path, not 'x'"),
        (GOOD + "Exce=x\n", "a.conf:4: Exce= is not a key of [Engine]; the keys are Exec, Formats,"),
        (GOOD + "[Service]\nUser=root\n", "a.conf:5: unknown section [Service]; the only one is [Engine]"),
        ("Exec=/bin/x\n", "a.conf:1: it is before any section"),
        ("[Engine]\nFormats=gguf\n", "a.conf: it has no Exec="),
        ("[Engine]\nExec=/bin/x\n", "a.conf: it has no Formats="),
        (b"[Engine]\nExec=/bin/\xff\n", "a.conf: line 2 is not UTF-8"),
        (GOOD + "#" * SIZE_MAX, f"a.conf: it has more than {SIZE_MAX} bytes"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line_and_the_others_are_not(
    put: Put, text: str | bytes, said: str
) -> None:
    path = put("etc/rbee/engines.d/a.conf", text)
    put("etc/rbee/engines.d/b.conf")

    found = put.load()

    assert list(found.engines) == ["b"]
    (problem,) = found.problems
    assert problem.startswith(f"{path.parent}/{said}")


def test_what_is_wrong_in_an_addition_is_that_file_s(put: Put) -> None:
    put("usr/lib/rbee/engines.d/a.conf")
    path = put("etc/rbee/engines.d/a.conf.d/10.conf", "[Engine]\nSocket=udp\n")

    found = put.load()

    assert found.engines == {}
    assert found.problems == (f"{path}:2: Socket= must be 'unix' or 'tcp'",)


def test_a_name_that_is_none_and_what_cannot_be_read_are_problems(put: Put) -> None:
    put("etc/rbee/engines.d/Big Engine.conf")
    (put.root / "etc/rbee/engines.d/loop.conf").symlink_to("loop.conf")

    first, second = put.load().problems

    assert "an engine's name has 1 to 64 lowercase" in first
    assert "loop.conf: it cannot be read (Too many levels of symbolic links)" in second


def test_there_are_so_many_engines_at_most(put: Put) -> None:
    for number in range(ENGINES_MAX + 1):
        put(f"etc/rbee/engines.d/e{number}.conf")

    found = put.load()

    assert len(found.engines) == ENGINES_MAX
    assert "more than" in found.problems[0]


def test_a_user_s_own_come_before_the_machine_s(tmp_path: Path) -> None:
    home = tmp_path / "home"
    scope = user_scope({"HOME": str(home)})
    own = tmp_path / str(home / ".config/rbee/engines.d/a.conf").removeprefix("/")
    own.parent.mkdir(parents=True)
    own.write_text(GOOD)

    assert list(load(scope, tmp_path).engines) == ["a"]


def test_an_engine_on_tcp_has_its_port(put: Put, tmp_path: Path) -> None:
    path = put("etc/rbee/engines.d/a.conf", "[Engine]\nExec=/bin/a --port 80\nFormats=gguf\nSocket=tcp\n")
    assert load(root=tmp_path).problems == (
        f"{path}: with Socket=tcp, Exec= or Environment= must have the port, %p",
    )
    for line in ("Exec=/bin/a --port %p", "Environment=PORT=%p"):
        put("etc/rbee/engines.d/a.conf.d/10.conf", f"[Engine]\n{line}\n")
        assert load(root=tmp_path).problems == ()
        assert load(root=tmp_path).engines["a"].socket == "tcp"


def test_the_file_that_has_the_command_for_the_memory_is_known(put: Put) -> None:
    main = put("etc/rbee/engines.d/a.conf", GOOD + "Estimate=/bin/one\n")
    put("etc/rbee/engines.d/a.conf.d/1.conf", "[Engine]\nReady=/x\n")
    assert put.load().engines["a"].estimate_file == main
    last = put("etc/rbee/engines.d/a.conf.d/2.conf", "[Engine]\nEstimate=/bin/two\n")

    found = put.load().engines["a"]
    assert (found.estimate, found.estimate_file) == (("/bin/two",), last)
