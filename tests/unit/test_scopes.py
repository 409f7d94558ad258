"""Whose rbee a program is about is chosen once, where it starts: no other module names the system's.

So an rbee of a user needs other units and another option, and every path and hint follows.
"""

from __future__ import annotations

import ast
import errno
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

import rbee.keeper.__main__
from rbee import config
from rbee.catalogfile import way_out
from rbee.client.answers import cannot_connect
from rbee.errors import NotPermitted, TcpClosed, UnknownHive, UnknownToken
from rbee.keeper.doctor.check import no_bus
from rbee.keeper.doctor.checks import CHECKS
from rbee.keeper.doctor.doctor import Doctor
from rbee.keeper.doctor.patient import LAUNCHERS, Patient
from rbee.keeper.permission import explain
from rbee.keeper.session import Session
from rbee.queen.api.admission import Admission
from rbee.queen.hives.local import fault_of
from rbee.queen.queen import Site
from rbee.scope import (
    HIVE_PROGRAM,
    HIVE_UNIT,
    JOIN_UNIT,
    QUEEN_PROGRAM,
    QUEEN_UNIT,
    SYSTEM,
    Scope,
    user_scope,
)
from rbee.server.peer import Peer
from rbee.systemd import bus as systemd
from rbee.wire.heartbeats import HiveHealth
from rbee.wire.routes import QueenRoutes
from tests.unit.keeper.conftest import bus, executed, rbeectl
from tests.unit.keeper.doctor.doubles import FAILED, MASKED
from tests.unit.keeper.doubles import JOB, Rbeectl
from tests.unit.played_systemd import PlayedBus, PlayedSystemd
from tests.unit.queens import a_queen

__all__ = ["bus", "executed", "rbeectl"]

PACKAGE = Path(__file__).parents[2] / "rbee"
TREES = {
    path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text())
    for path in sorted(PACKAGE.rglob("*.py"))
}

STARTS = {"scope.py": "it makes the scopes", "keeper/__main__.py": "rbeectl, until it has --user"}
"""Where the scope is chosen. The daemons choose by scope_of()."""


def defaults(tree: ast.Module) -> Iterator[ast.AST]:
    """The default of each argument, and of each field of a dataclass."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arguments):
            yield from (one for one in (*node.defaults, *node.kw_defaults) if one is not None)
        elif isinstance(node, ast.ClassDef):
            yield from (one.value for one in node.body if isinstance(one, ast.AnnAssign) and one.value)


@pytest.mark.parametrize("file", sorted(TREES.keys() - STARTS.keys()))
def test_a_module_names_the_system_only_as_a_default(file: str) -> None:
    tree = TREES[file]
    as_default = {name for default in defaults(tree) for name in ast.walk(default)}
    lines = {
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and node.id == "SYSTEM" and node not in as_default
    }

    assert lines == set(), f"rbee/{file}: SYSTEM, where the scope should be handed in"


# Who calls such a function hands its scope on

Function = ast.FunctionDef | ast.AsyncFunctionDef


def module_of(file: str) -> str:
    return ".".join(("rbee", *Path(file).with_suffix("").parts)).removesuffix(".__init__")


def takes_scope(node: ast.stmt) -> bool:
    """Has a function a `scope` with a default, or a class in its constructor or its fields?"""
    if isinstance(node, Function):
        given = zip(reversed(node.args.args), reversed(node.args.defaults), strict=False)
        names = [argument.arg for argument, _ in given]
        return "scope" in names + [argument.arg for argument in node.args.kwonlyargs]
    if isinstance(node, ast.ClassDef):
        return any(
            takes_scope(one)
            if isinstance(one, Function) and one.name == "__init__"
            else isinstance(one, ast.AnnAssign) and ast.unparse(one.target) == "scope" and one.value
            for one in node.body
        )
    return False


def all_that_take_scopes() -> Iterator[str]:
    """rbee.config.load, rbee.systemd.bus.Bus, rbee.catalogfile.Lock.take"""
    for file, tree in TREES.items():
        for node in tree.body:
            if takes_scope(node):
                yield f"{module_of(file)}.{node.name}"  # type: ignore[attr-defined]  # functions and classes
            if isinstance(node, ast.ClassDef):
                named = (one for one in node.body if isinstance(one, Function) and takes_scope(one))
                yield from (f"{module_of(file)}.{node.name}.{one.name}" for one in named)


TAKE_SCOPES = {*all_that_take_scopes(), "rbee.systemd.bus.Bus"}  # Bus has its base's constructor


def calls(file: str) -> Iterator[tuple[str, ast.Call]]:
    """The full name of what each call of a module calls, also by way of partial(), and the call."""
    tree, own = TREES[file], module_of(file)
    names = {one.name: f"{own}.{one.name}" for one in tree.body if isinstance(one, Function | ast.ClassDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            callee = node.func
            if ast.unparse(callee) == "partial":
                callee = node.args[0]
            first, *rest = ast.unparse(callee).split(".")
            yield ".".join((names.get(first, first), *rest)), node


@pytest.mark.parametrize("file", sorted(TREES))
def test_a_module_hands_its_scope_on(file: str) -> None:
    lines = {
        f"{file}:{call.lineno} {name}"
        for name, call in calls(file)
        if name in TAKE_SCOPES and not re.search(r"(scope|REMOTE|SYSTEM)\b", ast.unparse(call))
    }

    assert lines == set()


# Nobody but the scope types a command, or knows a path

COMMAND = re.compile(r"(?:^|[:;,(]|\n|\bthen)\s*(?:sudo|rbeectl|systemctl|journalctl)[ )]")
WORD = re.compile("sudo|systemctl|journalctl")
PLACE = re.compile("/run/rbee|/var/lib|/etc/rbee|/etc/systemd")

OF_THE_MACHINE = (
    "sudo apt ",  # packages are installed for all users
    "sudo dmesg",
    "sudo mount -o remount,rw ",
    "sudo mkdir -p ",  # files.cure(), about any file
    "sudo install -d -m 1777 ",  # the folder for temporary files
    "sudo sh -c 'rm /etc/machine-id",
    "sudo systemd-machine-id-setup",
    "sudo ss ",  # the kernel shows only root whose socket it is
    "sudo ufw ",
)
"""What is the whole machine's and needs root, whosever rbee it is about."""

NO_COMMANDS = (
    "rbeectl is through",
    "rbeectl asks for sudo",
    "journalctl cannot be run",
)
"""Sentences that begin with a program's name."""

ELSEWHERE = {
    "keeper/fleet/sudo.py": "sudo itself, on another machine",
    "keeper/fleet/units.py": "systemctl on another machine, whose rbee is never a user's",
}

OF_SYSTEMD = {"make its directory in /var/lib": "as systemd.exec(5) explains an exit status"}


def shown_by_click(tree: ast.Module) -> Iterator[ast.AST]:
    """The texts of --help, which are the manual's too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg in ("help", "short_help"):
            yield node.value


def docstrings(tree: ast.Module) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.value


def texts(file: str) -> Iterator[tuple[int, str]]:
    """Line and text of each literal of a module, of parts of f-strings too."""
    tree = TREES[file]
    others = {*shown_by_click(tree), *docstrings(tree)}
    programs = {
        node.args[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("scope.command")
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in others | programs:
            yield node.lineno, node.value


def typed_by_hand(text: str) -> bool:
    for known in (*OF_THE_MACHINE, *NO_COMMANDS, *OF_SYSTEMD):
        text = text.replace(known, "")
    return bool(COMMAND.search(text) or WORD.fullmatch(text) or PLACE.search(text))


@pytest.mark.parametrize("file", sorted(TREES.keys() - {"scope.py"} - ELSEWHERE.keys()))
def test_a_module_has_commands_and_paths_from_its_scope(file: str) -> None:
    assert [f"rbee/{file}:{line}: {text}" for line, text in texts(file) if typed_by_hand(text)] == []


def test_each_exception_is_needed() -> None:
    every = [text for file in TREES for _, text in texts(file)]

    for known in (*OF_THE_MACHINE, *NO_COMMANDS, *OF_SYSTEMD):
        assert any(known in text for text in every), known
    for file in ELSEWHERE:
        assert any(typed_by_hand(text) for _, text in texts(file)), file


@pytest.mark.parametrize(
    "text",
    [
        "sudo rm x",
        "x; rbeectl wake",
        "Or: systemctl status x",
        "a\njournalctl -e",
        "(sudo x)",
        "systemctl",
        "/run/rbee/x",
    ],
)
def test_what_is_typed_by_hand_is_found(text: str) -> None:
    assert typed_by_hand(text)


# What a user reads whose rbee is the user's own


@pytest.fixture
def user(tmp_path: Path) -> Scope:
    return user_scope({"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")})


def is_for_the_user(text: str | None) -> bool:
    """Is every command in a hint one that its user types, without root?"""
    assert text
    commands = re.findall(r"\b(?:rbeectl|systemctl|journalctl)\b(?: --user)?", text)
    return "sudo" not in text and bool(commands) and all(one.endswith("--user") for one in commands)


@pytest.fixture
def rbeectl_of_user(user: Scope, rbeectl: Rbeectl, monkeypatch: pytest.MonkeyPatch) -> Rbeectl:
    monkeypatch.setattr(rbee.keeper.__main__, "SYSTEM", user)
    return rbeectl


def test_rbee_of_a_user_is_reached_over_the_user_s_own_sockets(
    bus: PlayedBus, user: Scope, tmp_path: Path
) -> None:
    assert user.queen_socket == tmp_path / "run/rbee/queen.sock"
    assert config.load(tmp_path, user).hive.queen == user.queen_socket
    with Session(user).queen() as queen:
        assert (queen.client._path, bus.scope) == (user.queen_socket, user)


@pytest.mark.parametrize(
    "arguments", [["list-hives"], ["catalog", "backup", "x.db"], ["catalog", "check"]], ids=" ".join
)
def test_rbeectl_names_the_user_s_commands(
    bus: PlayedBus, rbeectl_of_user: Rbeectl, arguments: list[str]
) -> None:
    ran = rbeectl_of_user(*arguments)

    assert ran.code != 0
    assert is_for_the_user(ran.err.partition("try: ")[2])


def test_rbeectl_shows_the_user_s_journal(
    bus: PlayedBus, rbeectl_of_user: Rbeectl, executed: Callable[[], list[str]]
) -> None:
    assert rbeectl_of_user("logs", "--job", JOB).code == 0
    assert executed() == [
        "journalctl", "--user", f"RBEE_JOB_ID={JOB}", f"_SYSTEMD_USER_UNIT={QUEEN_UNIT}", "+",
        f"RBEE_JOB_ID={JOB}", f"_SYSTEMD_USER_UNIT={HIVE_UNIT}",
    ]  # fmt: skip


def test_a_refusal_of_the_user_s_own_names_no_group(user: Scope) -> None:
    assert explain(NotPermitted("no"), user).hint == "rbeectl --user doctor"


def test_the_clients_name_the_user_s_units(user: Scope) -> None:
    error = cannot_connect(user.queen_socket, FileNotFoundError(errno.ENOENT, "none"), user)

    assert is_for_the_user(error.hint)


async def test_the_queen_names_the_user_s_commands(user: Scope, tmp_path: Path) -> None:
    async with a_queen(tmp_path / "queen", scope=user) as queen:
        with pytest.raises(UnknownHive) as no_hive:
            queen.hives.hive("gpu1")
        with pytest.raises(TcpClosed) as no_access:
            _ = queen.access.authority
        with pytest.raises(UnknownToken) as no_token:
            await queen.catalog.tokens.revoke("7" * 8, by={})
    foreign = fault_of(HiveHealth("ok", "0.5.0", "foo", str(user.queen_socket)), user)

    assert foreign is not None
    for error in (no_hive.value, no_access.value, no_token.value, foreign):
        assert is_for_the_user(error.hint)
    assert is_for_the_user(way_out(user, is_open=True))


def test_the_doctor_mends_with_the_user_s_rights(
    user: Scope, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PlayedBus, "scope", user)
    bus = PlayedBus()
    bus.states |= {QUEEN_UNIT: FAILED, HIVE_UNIT: MASKED, JOIN_UNIT: FAILED}
    for program in (QUEEN_PROGRAM, HIVE_PROGRAM):
        (tmp_path / LAUNCHERS).mkdir(parents=True, exist_ok=True)
        (tmp_path / LAUNCHERS / program).touch()
    patient = Patient(cast(systemd.Bus, bus), tmp_path, user.is_owner(), None, user)

    asked = {check.name: list(check.look(patient)) for check in CHECKS if check.is_of_use(patient)}

    assert asked.keys() & {"polkit", "group"} == set()
    complaints = [complaint for found in asked.values() for complaint in found]
    cures = [cure for complaint in complaints for cure in complaint.cures]
    hints = [complaint.hint for complaint in complaints if complaint.hint]
    assert {cure[0] for cure in cures} == {"systemctl", "systemd-tmpfiles"}
    assert {cure[1] for cure in cures} == {"--user"}
    assert hints
    assert all(is_for_the_user(hint) for hint in hints)
    assert Doctor(lambda: cast(systemd.Bus, bus), None, scope=user).typed(cures[0]) == " ".join(cures[0])


def test_in_an_rbee_of_a_user_the_uid_of_queen_and_hive_is_the_operator_s(tmp_path: Path) -> None:
    played = PlayedSystemd()
    own, system = (
        Site(scope, tmp_path, tmp_path / "hive.sock", played, find_hive_uid=lambda: 4711)
        for scope in (user_scope(), SYSTEM)
    )

    assert own.daemons() == set()
    assert system.daemons() == {os.geteuid(), 4711}


def test_who_may_beat_is_named_by_the_scope_and_the_bus_by_its_kind() -> None:
    with pytest.raises(NotPermitted, match="heartbeats are accepted from the user worker only"):
        Admission(1, hive_user="worker")(Peer(1, 2, 2), QueenRoutes.HEARTBEAT)
    assert no_bus(user_scope()).text == "not checked: the user bus does not answer"
