"""Each command line of README, of the pages of packaging/docs and of the manual runs as it is written.

A command is a line that begins with '$ ' (a member of group rbee) or '# ' (root): in Markdown in an
indented block, in a manual page in a literal block or after .Dl. Those of a page are typed one after
the other, in one machine; 'gpu1# ' is root on another, where a page has such lines. What stands below
a command in its block is what it prints. TOKEN is the token that was printed last.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from testbed.bridge import Bridge
from testbed.debian import ARCHIVE_INSIDE, add_person
from testbed.machine import Machine
from testbed.tiny_model import says
from testbed.trees import ENGINE_INSIDE, Trees, use_engine

from tests.system.commands import add_hive, await_state, put
from tests.system.fleet.ssh import let_in
from tests.system.serve.served import write_model

CHECKOUT = Path(__file__).resolve().parents[2]
MANUAL = sorted((CHECKOUT / "packaging/man").iterdir())
PAGES = [CHECKOUT / "README.md", *sorted((CHECKOUT / "packaging/docs").iterdir()), *MANUAL]

QUEEN_PAGE = "queen-rbee.service.8"

GUEST = "gpu1"
"""The other machine of the pages that have two."""

SUCCESSOR = "queen2"
"""The machine to which the queen moves."""

AWAITED = ("rbeectl join", "rbeectl wake", "rbeectl tcp enable", "systemctl start", "systemctl restart")
"""After these the hive on the other machine comes by itself, in a moment."""

TESTED_ELSEWHERE = {
    ("README.md", "rbeectl add-hive root@gpu2 --install ./dist"): "needs ssh: fleet/test_add_by_ssh.py",
    ("fleet.md", "rbeectl add-hive grace@gpu1"): "needs ssh, and somebody who types: fleet/test_sudo.py",
    ("fleet.md", "rbeectl add-hive root@gpu1"): "needs ssh, and a bastion: fleet/test_address.py",
    ("fleet.md", "visudo -f /etc/sudoers.d/grace"): "an editor; fleet/test_sudo.py writes the file",
    ("README.md", "packaging/deb dist"): "tests/run builds the packages with it",
    ("developers.md", "tests/run --fast"): "it is what runs this",
    ("developers.md", "tests/run"): "it is what runs this",
    ("developers.md", "tests/run --suite bookworm tests/system/test_verbs.py -k wake"): "as above",
    ("developers.md", "tests/run --bench"): "it measures, and boots machines of its own",
    ("developers.md", "tests/run --bench trixie beat memory --rounds 5"): "as above",
    ("developers.md", "packaging/demo --shell"): "a person's; packaging/demo itself is run before a release",
    ("rbeectl.1", "adduser USER rbee"): "USER is the reader; README's line is run",
    ("rbeectl.1", "newgrp rbee"): "a shell; test_people.py runs it",
    (QUEEN_PAGE, "systemctl stop rbee.target"): "the rest of the page needs her socket; test_cascade.py",
    (QUEEN_PAGE, "systemctl status queen-rbee.service"): "she was stopped above; README's line is run",
    (QUEEN_PAGE, "rbeectl catalog restore FILE"): "FILE is the reader's; operators.md's line is run",
    (QUEEN_PAGE, "rbeectl catalog restore --empty"): "needs her off; test_damaged_catalog.py",
    ("rbee-hive.service.8", "systemctl edit rbee-hive.service"): "an editor",
    ("rbee-worker@.service.8", "systemctl status rbee-worker@bee-1"): "needs a worker: serving.md's is run",
}
"""What a machine cannot run as it stands, and why, or where it is run."""

APT = f"""
APT::Get::Assume-Yes "true";
APT::Install-Recommends "false";
Dir::Etc::sourcelist "{ARCHIVE_INSIDE}/sources.list";
Dir::Etc::sourceparts "/dev/null";
"""
"""The reader has Debian's archive, and says yes."""

NOT_THE_SAME = ((r"AMD EPYC", r".+?"), (r"\d+(\.\d+)?", r"\\d+(\\.\\d+)?"), (r"…", r".*"), (r" {2,}", r" +"))
"""What may differ between a page and a machine: its processor, numbers, and how wide a column is."""


@dataclass
class Command:
    """`user` is None for root; `printed` are the lines that the page shows below it."""

    user: str | None
    text: str
    code: int = 0
    host: str | None = None
    printed: list[str] = field(default_factory=list)

    @property
    def goes_on(self) -> bool:
        """Until somebody ends it."""
        return re.match(r"rbeectl (monitor|logs .*-f)|journalctl .*(-f|--follow)", self.text) is not None


def blocks(page: Path) -> Iterator[list[str]]:
    """The literal blocks of a page."""
    text = page.read_text()
    if page.suffix == ".md":
        for block in re.findall(r"(?m)(?:^    .*\n?)+", text):
            yield [line[4:] for line in block.splitlines()]
        return
    for found in re.finditer(r"(?ms)^\.Bd -literal.*?\n(.*?)^\.Ed$|^\.Dl (.*?)$", text):
        yield re.sub(r"\\[&]", "", found[1] or found[2]).splitlines()


def commands(page: Path) -> list[Command]:
    found: list[Command] = []
    for block in blocks(page):
        current: Command | None = None
        for line in block:
            if prompt := re.match(rf"(?:({GUEST}|{SUCCESSOR})?# |\$ )", line):
                text, _, code = line[prompt.end() :].partition("    # exit status ")
                user = "ada" if prompt[0] == "$ " else None
                current = Command(user, text.strip(), int(code or 0), prompt[1])
                found.append(current)
            elif current is not None:
                current.printed.append(line)
    return found


def is_like(printed: str, line: str) -> bool:
    """Does a line that was printed look like one of a page?"""
    pattern = re.escape(line).replace(r"\ ", " ")
    for what, instead in NOT_THE_SAME:
        pattern = re.sub(what.replace(r"\d+(\.\d+)?", r"\d+(\\\.\d+)?"), instead, pattern)
    return re.fullmatch(pattern, printed) is not None


@pytest.fixture
def page_machine(
    request: pytest.FixtureRequest, suite: str, trees: Trees, debs: list[Path]
) -> Iterator[Machine]:
    """As the reader of a page has it: for README with the packages built, else with an awake queen.

    With an inference engine, and a model in ada's home.
    """
    is_readme = request.getfixturevalue("page").name == "README.md"
    tree = trees.base(suite) if is_readme else trees.installed(suite, debs)
    inside = [f"{trees.archive(suite)}:{ARCHIVE_INSIDE}", f"{trees.engine()}:{ENGINE_INSIDE}"]
    with (
        Bridge() as bridge,
        Machine(tree, bridge=bridge, hostname="queen", bind_ro=inside) as machine,
    ):
        use_engine(machine)
        if is_readme:
            add_person(machine, "ada")
            machine.run("tee", "/etc/sudoers.d/ada", input="ada ALL=(ALL) NOPASSWD: ALL\n")
            for deb in debs:
                machine.copy_in(deb, f"/home/ada/dist/{deb.name}")
        else:
            put(machine, "/etc/apt/apt.conf.d/50-archive", APT)
            machine.run("apt-get", "update")
            add_hive(machine)
        write_model(machine, "/home/ada/bee.gguf", says("I am bee, and I run on this machine."))
        yield machine


@pytest.fixture
def guest_machine(
    request: pytest.FixtureRequest, suite: str, trees: Trees, debs: list[Path], page_machine: Machine
) -> Iterator[Machine | None]:
    """The other machine of a page that has one: for README with the packages at hand, else installed."""
    page = request.getfixturevalue("page")
    if not any(command.host for command in commands(page)):
        yield None
        return
    is_readme = page.name == "README.md"
    tree = trees.base(suite) if is_readme else trees.hive(suite, debs)
    with Machine(tree, bridge=page_machine.bridge, hostname=GUEST) as machine:
        if is_readme:
            for deb in debs:
                machine.copy_in(deb, f"/root/{deb.name}")
        yield machine


@pytest.fixture
def successor(
    request: pytest.FixtureRequest, suite: str, trees: Trees, debs: list[Path], page_machine: Machine
) -> Iterator[Machine | None]:
    """Where the queen of a page moves, which root at her machine reaches by ssh."""
    page = request.getfixturevalue("page")
    if not any(command.host == SUCCESSOR for command in commands(page)):
        yield None
        return
    tree = trees.installed(suite, debs)
    with Machine(tree, bridge=page_machine.bridge, hostname=SUCCESSOR) as machine:
        let_in(page_machine, None, machine)
        yield machine


def rejoin(queen: Machine, guest: Machine) -> None:
    """The reader whose queen moves has a hive, which what stands before it in the page has removed."""
    token = queen.run("rbeectl", "token", "create").stdout.strip()
    guest.run("rbeectl", "join", "queen", "--token", token)
    await_state(queen, "online", 30, hive=GUEST)


def is_at_rest(machine: Machine) -> None:
    """The reader looks before going on: the hive on the other machine, where it is one, is online."""
    listed = machine.run("rbeectl", "list-hives", "--json", user="ada", check=False).stdout
    if any(hive["id"] == GUEST for hive in json.loads(listed or "{}").get("hives", ())):
        await_state(machine, "online", 30, hive=GUEST)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_command_of_a_page_runs_as_it_is_written(
    page: Path, page_machine: Machine, guest_machine: Machine | None, successor: Machine | None
) -> None:
    token = "none was made"
    machines = {None: page_machine, GUEST: guest_machine, SUCCESSOR: successor}
    queen = page_machine
    for command in commands(page):
        if (page.name, command.text) in TESTED_ELSEWHERE:
            continue
        if command.host == SUCCESSOR and successor is not None and queen is not successor:
            assert guest_machine is not None
            rejoin(queen, guest_machine)
            queen = successor
        machine, home = machines[command.host], "/home/ada" if command.host is None else "/root"
        assert machine is not None
        # Who watches ends it with Ctrl-C.
        ended = "timeout --preserve-status --signal=INT 3 " if command.goes_on else ""
        done = machine.run(
            "bash", "-c", f"cd {home} && {ended}{command.text.replace('TOKEN', token)}", user=command.user,
            env={"USER": command.user or "root"}, check=False, timeout=120,
        )  # fmt: skip
        if made := re.search(r"(?m)^[0-9a-f]{8}\.\S{32}\.[0-9a-f]{64}$", done.stdout):
            token = made[0]
        is_followed = queen is not successor or command.host == GUEST  # else it is still to follow her
        if guest_machine is not None and is_followed and command.text.startswith(AWAITED):
            is_at_rest(queen)
        said = f"{command.text}\n{done.stdout}{done.stderr}"
        assert done.returncode == (130 if command.goes_on else command.code), said
        lines = done.stdout.splitlines()
        assert len(lines) >= len(command.printed), said
        for line, printed in zip(command.printed, lines, strict=False):
            assert is_like(printed, line), f"{printed!r} is not like {line!r}, in\n{said}"


def test_the_pages_have_commands() -> None:
    assert {page.name for page in PAGES if len(commands(page)) > 2} >= {
        "README.md", "api.md", "fleet.md", "operators.md", "developers.md", "rbeectl.1",
        "queen-rbee.service.8", "rbee-hive.service.8", "rbee-gateway.service.8", "rbee.engine.5",
        "serving.md",
    }  # fmt: skip


def test_what_is_run_elsewhere_is_still_in_its_page() -> None:
    written = {(page.name, command.text) for page in PAGES for command in commands(page)}

    assert set(TESTED_ELSEWHERE) <= written


@pytest.mark.parametrize(
    ("printed", "line", "likes"),
    [
        (
            "localhost  cpu  Intel X (2 cores)  7.5 GiB",
            "localhost     cpu     AMD EPYC (16 cores)  23 GiB",
            True,
        ),
        ("Hive localhost is Online", "Hive localhost is Online", True),
        ("Hive localhost is Offline", "Hive localhost is Online", False),
        ("(queen bee)  x", "(bee hive)   x", False),
        ('{"type":"a","x":1}', '{"type":"a",…', True),
    ],
)
def test_a_line_is_like_another_but_for_what_machines_differ_in(printed: str, line: str, likes: bool) -> None:
    assert is_like(printed, line) == likes


def test_the_manual_is_shown_without_a_word_of_complaint(machine: Machine) -> None:
    for page in MANUAL:
        name, section = page.stem, page.suffix[1:]
        shown = machine.run("sh", "-c", f"man --warnings -E UTF-8 {section} {name} | col -b")
        assert shown.stderr == "", page.name
        assert "NAME" in shown.stdout
        assert name in shown.stdout


def test_man_finds_units_and_programs_by_their_names(machine: Machine) -> None:
    for names in (CHECKOUT / "debian").glob("*.links"):
        for line in names.read_text().splitlines():
            page, name = (Path(one).stem for one in line.split())
            shown = machine.run("sh", "-c", f"man --warnings -E UTF-8 {name} | col -b")
            assert shown.stderr == "", name
            assert shown.stdout.startswith(page.upper()), name
