"""rbee.conf is read as systemd reads its own files."""

from __future__ import annotations

import configparser
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from rbee.config import SECTIONS, Config, HiveConfig, QueenConfig, load, where_set
from rbee.errors import BadConfig
from rbee.scope import SYSTEM, user_scope

REPOSITORY = Path(__file__).parents[2]

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file below the root."""

    def write(path: str, text: str) -> Path:
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        return target

    return write


def jobs_max(root: Path) -> int:
    return load(root).queen.jobs_max


# Precedence


def test_without_files_there_are_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path) == Config()


def test_a_file_changes_what_it_names_and_nothing_else(tmp_path: Path, write: Write) -> None:
    write(
        "etc/rbee/rbee.conf",
        "# words\n[Queen]\nHeartbeatIntervalSec=500ms\nDatabase = /srv/rbee/catalog.db\n"
        "; more words\n[Hive]\nId=blade-7\n",
    )

    assert load(tmp_path) == Config(
        QueenConfig(heartbeat_interval=0.5, database=Path("/srv/rbee/catalog.db")), HiveConfig(id="blade-7")
    )


@pytest.mark.parametrize(
    ("present", "counts"),
    [
        (("etc", "usr/local/lib", "usr/lib"), "etc"),
        (("usr/local/lib", "usr/lib"), "usr/local/lib"),
        (("usr/lib",), "usr/lib"),
    ],
)
def test_of_the_main_files_only_the_first_counts(
    tmp_path: Path, write: Write, present: tuple[str, ...], counts: str
) -> None:
    values = {"etc": 1, "usr/local/lib": 2, "usr/lib": 3}
    for folder in present:
        write(f"{folder}/rbee/rbee.conf", f"[Queen]\nJobsMax={values[folder]}\n[Hive]\nId={folder[:3]}\n")

    assert (jobs_max(tmp_path), load(tmp_path).hive.id) == (values[counts], counts[:3])


def test_a_main_file_does_not_mix_with_those_it_hides(tmp_path: Path, write: Write) -> None:
    write("etc/rbee/rbee.conf", "[Hive]\nId=mine\n")
    write("usr/lib/rbee/rbee.conf", "[Queen]\nJobsMax=9\n")

    assert load(tmp_path) == Config(hive=HiveConfig(id="mine"))


def test_dropins_come_after_the_main_file_sorted_by_name_whatever_their_folder(
    tmp_path: Path, write: Write
) -> None:
    write("etc/rbee/rbee.conf", "[Queen]\nJobsMax=1\n[Hive]\nId=main\n")
    write("etc/rbee/rbee.conf.d/10-a.conf", "[Queen]\nJobsMax=2\nHeartbeatGraceSec=9\n")
    write("usr/lib/rbee/rbee.conf.d/50-b.conf", "[Queen]\nJobsMax=3\n")
    write("usr/local/lib/rbee/rbee.conf.d/20-c.conf", "[Queen]\nJobsMax=4\n")

    assert load(tmp_path) == Config(QueenConfig(jobs_max=3, heartbeat_grace=9.0), HiveConfig(id="main"))


def test_dropins_are_read_without_a_main_file(tmp_path: Path, write: Write) -> None:
    write("usr/lib/rbee/rbee.conf.d/50-b.conf", "[Queen]\nJobsMax=3\n")

    assert jobs_max(tmp_path) == 3


def test_a_dropin_masks_those_of_the_same_name_in_later_folders(tmp_path: Path, write: Write) -> None:
    write("usr/lib/rbee/rbee.conf.d/50-x.conf", "[Queen]\nJobsMax=3\nHeartbeatGraceSec=1\n")
    write("usr/local/lib/rbee/rbee.conf.d/50-x.conf", "[Queen]\nJobsMax=4\nDetectTimeoutSec=1\n")
    write("etc/rbee/rbee.conf.d/50-x.conf", "[Queen]\nJobsMax=5\n")

    assert load(tmp_path).queen == QueenConfig(jobs_max=5)


def test_a_symlink_to_dev_null_masks_a_dropin(tmp_path: Path, write: Write) -> None:
    write("usr/lib/rbee/rbee.conf.d/50-x.conf", "[Queen]\nJobsMax=3\n")
    folder = tmp_path / "etc/rbee/rbee.conf.d"
    folder.mkdir(parents=True)
    (folder / "50-x.conf").symlink_to("/dev/null")

    assert load(tmp_path) == Config()


def test_a_symlink_to_dev_null_masks_the_main_files_behind_it(tmp_path: Path, write: Write) -> None:
    write("usr/lib/rbee/rbee.conf", "[Queen]\nJobsMax=3\n")
    (tmp_path / "etc/rbee").mkdir(parents=True)
    (tmp_path / "etc/rbee/rbee.conf").symlink_to("/dev/null")

    assert load(tmp_path) == Config()


def test_only_files_that_end_in_conf_are_dropins(tmp_path: Path, write: Write) -> None:
    write("etc/rbee/rbee.conf.d/50-x.conf.bak", "[Queen]\nJobsMax=3\n")
    write("etc/rbee/rbee.conf.d/README", "[Queen]\nJobsMax=4\n")

    assert load(tmp_path) == Config()


def test_an_empty_assignment_gives_the_default_back(tmp_path: Path, write: Write) -> None:
    write("usr/lib/rbee/rbee.conf", "[Queen]\nJobsMax=3\nDatabase=/x\n[Hive]\nId=x\n")
    write("etc/rbee/rbee.conf.d/50-x.conf", "[Queen]\nJobsMax=\nDatabase=\n[Hive]\nId=\n")

    assert load(tmp_path) == Config()


def test_of_two_assignments_in_one_file_the_later_wins(tmp_path: Path, write: Write) -> None:
    write("etc/rbee/rbee.conf", "[Queen]\nJobsMax=3\n[Hive]\nId=x\n[Queen]\nJobsMax=4\n")

    assert jobs_max(tmp_path) == 4


def test_a_percent_sign_is_a_percent_sign(tmp_path: Path, write: Write) -> None:
    write("etc/rbee/rbee.conf", "[Queen]\nDatabase=/srv/100%/%(x)s.db\n")

    assert load(tmp_path).queen.database == Path("/srv/100%/%(x)s.db")


# What is wrong


@pytest.mark.parametrize(
    ("text", "section", "key"),
    [
        ("[Queen]\nJobMax=3\n", "Queen", "JobMax"),
        ("[Queen]\njobsmax=3\n", "Queen", "jobsmax"),
        ("[Hive]\nJobsMax=3\n", "Hive", "JobsMax"),
        ("[Worker]\nJobsMax=3\n", "Worker", "JobsMax"),
        ("[queen]\nJobsMax=3\n", "queen", "JobsMax"),
    ],
)
def test_an_unknown_key_is_passed_over_with_a_warning(
    tmp_path: Path, write: Write, text: str, section: str, key: str
) -> None:
    path = write("etc/rbee/rbee.conf", text)

    config = load(tmp_path)

    assert config.warnings == (f"{path}: unknown key '{key}' in section [{section}], ignored",)
    assert (config.queen, config.hive) == (QueenConfig(), HiveConfig())


@pytest.mark.parametrize(
    ("section", "key", "value", "complaint"),
    [
        ("Queen", "JobsMax", "0", "must be a whole number from 1 to 10000"),
        ("Queen", "JobsMax", "10001", "must be a whole number from 1 to 10000"),
        ("Queen", "JobsMax", "many", "must be a whole number from 1 to 10000"),
        ("Queen", "JobsMax", "2.5", "must be a whole number from 1 to 10000"),
        ("Queen", "JobsMax", "-1", "must be a whole number from 1 to 10000"),
        ("Queen", "JobsMax", "٣", "must be a whole number from 1 to 10000"),
        ("Queen", "HeartbeatIntervalSec", "0", "must be from 0.1 s to 1h"),
        ("Queen", "HeartbeatIntervalSec", "2h", "must be from 0.1 s to 1h"),
        ("Queen", "HeartbeatIntervalSec", "soon", "is not a time span such as 15s, 500ms or 1min 30s"),
        ("Queen", "HeartbeatGraceSec", "1ms", "must be from 0.1 s to 1h"),
        ("Queen", "HiveStartTimeoutSec", "11min", "must be from 0.1 s to 10min"),
        ("Queen", "DetectTimeoutSec", "infinity", "is not a time span"),
        ("Queen", "Database", "catalog.db", "must be an absolute path"),
        ("Queen", "Database", "/a\0b", "must be an absolute path"),
        ("Hive", "Queen", "queen.sock", "must be an absolute path"),
        ("Hive", "Id", "two words", "must be made of"),
        ("Hive", "Id", "x" * 254, "must have 1 to 253 characters"),
        ("Hive", "NvmlTimeoutSec", "2min", "must be from 0.1 s to 1min"),
    ],
)
def test_a_bad_value_names_file_section_and_key(
    tmp_path: Path, write: Write, section: str, key: str, value: str, complaint: str
) -> None:
    write("usr/lib/rbee/rbee.conf", "[Queen]\nJobsMax=3\n")
    path = write("etc/rbee/rbee.conf.d/50-x.conf", f"[{section}]\n{key}={value}\n")

    with pytest.raises(BadConfig) as caught:
        load(tmp_path)

    assert caught.value.message.startswith(f"{path}: [{section}] {key}= {complaint}")
    assert caught.value.message.endswith(f"and is '{value}'")
    assert caught.value.field == key
    assert str(path) in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("JobsMax=3\n", "line 1 is before any section, such as [Queen] or [Hive]"),
        ("\n[Queen\nJobsMax=3\n", "line 2 is before any section, such as [Queen] or [Hive]"),
        ("[Queen]\nwords without sense\nJobsMax=3\nmore\n", "no Key=value in line 2, 4"),
    ],
)
def test_a_file_that_cannot_be_parsed_is_named_with_the_line(
    tmp_path: Path, write: Write, text: str, told: str
) -> None:
    path = write("etc/rbee/rbee.conf", text)

    with pytest.raises(BadConfig) as caught:
        load(tmp_path)

    assert caught.value.message == f"{path}: {told}"


def test_a_file_that_is_not_utf_8_is_named(tmp_path: Path, write: Write) -> None:
    path = write("etc/rbee/rbee.conf", "")
    path.write_bytes(b"[Hive]\nId=caf\xe9\n")

    with pytest.raises(BadConfig, match=re.escape(str(path))):
        load(tmp_path)


def test_a_file_that_cannot_be_read_is_named_with_the_cure(tmp_path: Path) -> None:
    path = tmp_path / "etc/rbee/rbee.conf.d/50-folder.conf"
    path.mkdir(parents=True)

    with pytest.raises(BadConfig, match=f"{re.escape(str(path))} cannot be read: Is a directory") as caught:
        load(tmp_path)

    assert caught.value.hint == f"ls -ld {path}"


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_a_file_that_begins_with_the_mark_of_utf_8_is_read_as_any_other(tmp_path: Path, ends: str) -> None:
    path = tmp_path / "etc/rbee/rbee.conf.d/50-windows.conf"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\xef\xbb\xbf" + f"[Queen]{ends}JobsMax=7{ends}".encode())

    assert load(tmp_path).queen.jobs_max == 7


# What is shipped


def shipped_keys() -> dict[str, dict[str, str]]:
    """Section -> key -> default of packaging/rbee.conf, its commented-out lines uncommented."""
    text = (REPOSITORY / "packaging/rbee.conf").read_text()
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[method-assign, assignment]
    parser.read_string(re.sub(r"(?m)^#(?=[A-Z]\w*=)", "", text))
    return {section: dict(parser.items(section)) for section in parser.sections()}


def test_the_shipped_file_changes_nothing(tmp_path: Path, write: Write) -> None:
    write("etc/rbee/rbee.conf", (REPOSITORY / "packaging/rbee.conf").read_text())

    assert load(tmp_path) == Config()


def test_the_shipped_file_lists_exactly_the_keys_with_their_defaults(tmp_path: Path, write: Write) -> None:
    shipped = shipped_keys()
    text = "".join(
        f"[{section}]\n" + "".join(f"{key}={value}\n" for key, value in keys.items())
        for section, keys in shipped.items()
    )
    write("etc/rbee/rbee.conf", text)

    assert {section: set(keys) for section, keys in shipped.items()} == {
        section: {one.metadata["key"] for one in fields(kind)} for section, kind in SECTIONS.items()
    }
    # The catalog's default is the service's state directory, which systemd names.
    assert load(tmp_path) == Config(QueenConfig(database=Path("/var/lib/queen-rbee/catalog.db")))


@pytest.mark.parametrize("section", SECTIONS)
def test_the_manual_page_names_each_key_and_its_default(section: str) -> None:
    page = (REPOSITORY / "packaging/man/rbee.conf.5").read_text()
    about = page.partition(f"[{section.upper()}] SECTION")[2].partition(".Sh ")[0]
    items = dict(re.findall(r"(?ms)^\.It Va (\w+)=\n(.*?)(?=^\.It |^\.El)", about))

    assert set(items) == {one.metadata["key"] for one in fields(SECTIONS[section])}
    for key, default in shipped_keys()[section].items():
        assert re.search(rf"\b{re.escape(default.lstrip('/'))}\b", items[key]), (
            f"{key}= defaults to {default}"
        )


@pytest.mark.parametrize(
    ("interval", "grace", "least"),
    [("10s", "2s", "3s"), ("15s", "4.4s", "4.5s"), ("1s", "299ms", "0.3s"), ("17s", "5s", "5.1s")],
)
def test_a_grace_of_less_than_three_beats_jitter_is_refused(
    tmp_path: Path, write: Write, interval: str, grace: str, least: str
) -> None:
    write("etc/rbee/rbee.conf", f"[Queen]\nHeartbeatIntervalSec={interval}\nHeartbeatGraceSec={grace}\n")

    with pytest.raises(BadConfig, match=f"must be at least {least} with") as caught:
        load(tmp_path)
    assert caught.value.field == "HeartbeatGraceSec"
    assert str(tmp_path / "etc/rbee/rbee.conf") in caught.value.message


def test_a_grace_of_three_beats_jitter_will_do(tmp_path: Path, write: Write) -> None:
    write("etc/rbee/rbee.conf", "[Queen]\nHeartbeatIntervalSec=1\nHeartbeatGraceSec=300ms\n")

    assert load(tmp_path).queen.heartbeat_grace == 0.3


def test_the_file_whose_assignment_counts_is_found(tmp_path: Path) -> None:
    for name, text in (("10", "[Hive]\nId=a\n"), ("20", "[Hive]\nId=b\n"), ("30", "[Queen]\nId=c\n")):
        place = tmp_path / f"etc/rbee/rbee.conf.d/{name}.conf"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    assert where_set("Hive", "Id", tmp_path) == tmp_path / "etc/rbee/rbee.conf.d/20.conf"
    assert where_set("Hive", "Queen", tmp_path) is None


def test_rbee_of_a_user_has_that_user_s_configuration_and_socket(tmp_path: Path, write: Write) -> None:
    user = user_scope({"HOME": "/home/ada", "XDG_RUNTIME_DIR": "/r"})
    write("home/ada/.config/rbee/rbee.conf", "[Hive]\nId=ada\nQueen=\n")
    write("etc/rbee/rbee.conf", "[Hive]\nId=machine\n")

    found = load(tmp_path, user).hive

    assert (found.id, found.queen) == ("ada", Path("/r/rbee/queen.sock"))
    assert load(tmp_path).hive == HiveConfig(id="machine", queen=SYSTEM.queen_socket)
