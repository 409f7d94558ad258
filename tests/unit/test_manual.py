"""rbeectl's help, its completions and its manual page tell of the same verbs, options and exit statuses."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import completions
import pytest

from rbee import errors
from rbee.errors import RbeeError
from rbee.keeper.cli import SECTIONS, cli

PACKAGING = Path(__file__).parents[2] / "packaging"
MANUAL = (PACKAGING / "man/rbeectl.1").read_text()
PAGES = sorted((PACKAGING / "man").iterdir())

SHARED = {"--json", "-q", "--quiet", "-h", "--help", "--debug", "--no-color"}
"""Options of every verb, which the manual has once."""


def section(name: str) -> str:
    """A section of the manual, without its heading."""
    found = re.search(rf"(?ms)^\.Sh {name}\n(.*?)(?=^\.Sh |\Z)", MANUAL)
    assert found, name
    return found[1]


def options_in(text: str) -> set[str]:
    """The options that some mdoc names: Fl p is -p, Fl -port is --port."""
    words = re.findall(r"(?m)^\.It (Fl .*)$", text)
    found = set()
    for line in words:
        for word in re.split(r"[ ,]+", line.removeprefix("Fl ")):
            if word == "Ar":
                break
            if word and word not in ("Fl", "|"):
                found.add("-" + word)
    return found


def options_of(command: click.Command) -> set[str]:
    return {name for option in completions.options_of(command) for name in completions.names_of(option)}


ALL_OPTIONS = {
    name for verb in completions.VERBS for names, _ in verb.options for name in names
} | options_of(cli)


# The manual


def test_the_manual_has_each_verb_and_no_other() -> None:
    groups = "|".join(completions.GROUPS)
    told = re.findall(rf"(?m)^\.It Cm ((?:(?:{groups}) )?[a-z-]+)", section("VERBS"))

    assert told == [" ".join(verb.path) for verb in completions.VERBS]


def test_the_manual_has_the_verbs_under_the_headings_of_the_help() -> None:
    assert re.findall(r"(?m)^\.Ss (.*)$", section("VERBS")) == list(SECTIONS)


def test_the_manual_has_each_option_and_no_other() -> None:
    assert options_in(section("OPTIONS")) - {"-h"} == ALL_OPTIONS | {"--no-color", "--debug"}


@pytest.mark.parametrize("verb", completions.VERBS, ids=lambda verb: " ".join(verb.path))
def test_the_manual_has_what_is_a_verbs_own(verb: completions.Verb) -> None:
    (line,) = re.findall(rf"(?m)^\.It Cm {' '.join(verb.path)}(?: (.*))?$", section("VERBS"))
    named = {"-" + word for word in re.findall(r"Fl ([a-z0-9-]+)", line)}
    everywhere = SHARED | {"--wait", "--no-wait", "--timeout", "--no-legend", "--no-pager", "-l", "--full"}
    own = [set(names) for names, _ in verb.options if not set(names) & everywhere]

    for names in own:
        assert names & named, f"{names} of {verb.path}"


def test_the_manual_tells_the_json_of_each_verb() -> None:
    told = " ".join(re.findall(r"(?m)^\.It Cm (.*)$", section("JSON"))).replace(" , ", " ").split()

    assert {word for verb in completions.VERBS for word in verb.path} <= set(told)


def test_the_manual_has_each_exit_status() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, RbeeError)]

    told = {int(code) for code in re.findall(r"(?m)^\.It (\d+)$", section("EXIT STATUS"))}
    assert told == {0} | {kind.exit_code for kind in kinds}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_mandoc_has_nothing_to_say_of_a_page(page: Path) -> None:
    mandoc = shutil.which("mandoc")
    assert mandoc, "tests/run installs mandoc"

    linted = subprocess.run([mandoc, "-T", "lint", "-W", "warning", page], capture_output=True, text=True)

    assert (linted.returncode, linted.stdout) == (0, "")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_refers_only_to_pages_that_there_are(page: Path) -> None:
    ours = {f"{one.stem} {one.suffix[1:]}" for one in PAGES}
    referred = set(re.findall(r"(?m)^\.Xr ((?:rbee|queen)\S* \d)", page.read_text()))

    assert referred <= ours


def test_there_is_a_page_a_program_a_file_and_the_fields() -> None:
    assert [page.name for page in PAGES] == [
        "queen-rbee.service.8", "rbee-gateway.service.8", "rbee-hive.service.8", "rbee-journal-fields.7",
        "rbee-worker@.service.8", "rbee.conf.5", "rbee.engine.5", "rbeectl.1",
    ]  # fmt: skip


LINKS = [
    [Path(name).stem for name in line.split()]
    for links in sorted((PACKAGING.parent / "debian").glob("*.links"))
    for line in links.read_text().splitlines()
]
LINKED = {page: {name for one, name in LINKS if one == page} | {page} for page, _ in LINKS}
"""The pages of the packages, with the names under which man finds each."""


def test_each_unit_and_each_program_has_its_page_by_its_name() -> None:
    units = {unit.name for unit in (PACKAGING.parent / "units").iterdir() if unit.is_file()}
    programs = {one.name for one in (PACKAGING / "launchers").iterdir()} - {"queen-rbee-stopped"}

    assert {name for names in LINKED.values() for name in names} >= units | programs


@pytest.mark.parametrize("page", LINKED)
def test_the_names_of_a_page_are_those_that_man_finds_it_by(page: str) -> None:
    (found,) = (one for one in PAGES if one.stem == page)
    head = found.read_text().partition(".Nd ")[0]

    assert set(re.findall(r"(?m)^\.Nm (\S+)", head)) == LINKED[page]


# The help


def help_of(*path: str) -> str:
    command = [sys.executable, "-m", "rbee.keeper", *path, "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("verb", completions.VERBS, ids=lambda verb: " ".join(verb.path))
def test_the_help_of_a_verb_has_its_options(verb: completions.Verb) -> None:
    told = re.findall(r"(?<![\w-])--?[\w-]+", help_of(*verb.path))

    assert {name for names, _ in verb.options for name in names} <= set(told)


def test_the_help_has_each_verb() -> None:
    listed = re.findall(r"(?m)^  ([a-z][a-z-]*)  +", help_of())
    assert listed == list(dict.fromkeys(verb.path[0] for verb in completions.VERBS))


# The completions


@pytest.mark.parametrize("name", completions.FILES_OF)
def test_a_completion_is_what_its_program_writes(name: str) -> None:
    written = (PACKAGING / "completions" / name).read_text()

    assert written == completions.FILES_OF[name](), "run packaging/completions.py"


def completed(*words: str, hives: str = "", models: str = "") -> list[str]:
    """What bash offers at the end of these words."""
    script = f"""
source {PACKAGING}/completions/rbeectl.bash
rbeectl() {{
    case $1 in
        list-hives) echo '{hives}' ;;
        model) echo '{models}' ;;
        key) echo '{{"keys": [{{"name": "alice"}}]}}' ;;
    esac
}}
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_rbeectl
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    ran = subprocess.run(["bash", "-c", script, "bash", *words], capture_output=True, text=True, check=True)
    assert ran.stderr == ""
    return sorted(ran.stdout.split())


HIVES = '{"hives": [{"id": "localhost", "host": "a"}, {"id": "blade-7", "host": "b"}]}'
MODELS = '{"models": [{"name": "bee", "source": "/srv/bee.gguf"}]}'


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["rbeectl", "list-"], ["list-devices", "list-engines", "list-hives", "list-workers"]),
        (["rbeectl", "--json", "wa"], ["wake"]),
        (["rbeectl", "--timeout", "5s", "sho"], ["show"]),
        (["rbeectl", "add-hive", ""], ["localhost"]),
        (["rbeectl", "show", ""], ["bee", "blade-7", "localhost"]),
        (["rbeectl", "show", "-p", "State", "bl"], ["blade-7"]),
        (["rbeectl", "label", ""], ["blade-7", "localhost"]),
        (["rbeectl", "show", "-p", ""], []),
        (["rbeectl", "list-hives", ""], []),
        (["rbeectl", "catalog", ""], ["backup", "check", "restore"]),
        (["rbeectl", "help", "list-h"], ["list-hives"]),
        (["rbeectl", "list-workers", "b"], ["bee"]),
        (["rbeectl", "model", "show", ""], ["bee"]),
        (["rbeectl", "model", "show", "bee", ""], []),
        (["rbeectl", "status", "b"], ["bee", "blade-7"]),
        (["rbeectl", "key", "revoke", ""], ["alice"]),
        (["rbeectl", "catalog", "backup", "--fo"], ["--force"]),
        (["rbeectl", "logs", "--fol"], ["--follow"]),
        (["rbeectl", "--no-c"], ["--no-color"]),
    ],
    ids=lambda one: " ".join(one),
)
def test_bash_offers_what_fits(words: list[str], offered: list[str]) -> None:
    assert completed(*words, hives=HIVES, models=MODELS) == offered


def test_bash_offers_files_where_one_is_meant(tmp_path: Path) -> None:
    (tmp_path / "hives.db").touch()

    for words in (["catalog", "check"], ["metrics", "--textfile"]):
        assert completed("rbeectl", *words, f"{tmp_path}/h") == [f"{tmp_path}/hives.db"]
