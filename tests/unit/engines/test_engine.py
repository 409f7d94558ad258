"""An engine's command line for what it is to serve, and what keeps it from being used."""

from __future__ import annotations

from pathlib import Path

import pytest

from rbee.engines.dropins import load
from rbee.engines.engine import SPECIFIERS, Engine, Task
from rbee.errors import BadInput
from rbee.scope import SYSTEM

TASK = Task(
    model=Path("/run/rbee-worker/bee-1/model"),
    socket=Path("/run/rbee-worker/bee-1/engine.sock"),
    alias="Bee 1",
    context=4096,
    slots=2,
    threads=6,
)
CARD = TASK._replace(uuid="GPU-1", claim=6 * 2**30, total=8 * 2**30)
PACKAGED = Path(__file__).parents[3] / "packaging/engines"


def engine(**keys: str) -> Engine:
    made = Engine("test", Path("/etc/rbee/engines.d/test.conf"))
    for key, text in keys.items():
        made = made.assign(key, text)
    return made


def packaged(tmp_path: Path, name: str) -> Engine:
    folder = tmp_path / SYSTEM.engine_folders[-1]
    folder.parent.mkdir(parents=True)
    folder.symlink_to(PACKAGED)
    found = load(root=tmp_path)
    assert found.problems == ()
    return found.engines[name]


def test_each_specifier_has_its_value_and_no_shell_sees_it() -> None:
    made = engine(Exec="/bin/x " + " ".join(f"%{one}" for one in SPECIFIERS) + " 'a %%b' $c")

    assert made.argv(TASK) == [
        "/bin/x", "/run/rbee-worker/bee-1/model", "/run/rbee-worker/bee-1/engine.sock", "8080", "Bee 1",
        "4096", "8192", "2", "6", "cpu", "0", "", "0.900", "a %b", "$c",
    ]  # fmt: skip
    assert made.argv(CARD)[9:13] == ["gpu", "999", "GPU-1", "0.750"]


def test_llama_server_is_told_all_that_it_would_size_to_the_whole_machine(tmp_path: Path) -> None:
    made = packaged(tmp_path, "llama-server")

    argv = made.argv(TASK)

    options = dict(zip(argv[1::2], argv[2::2], strict=False))
    assert options["--host"].endswith(".sock")
    assert {key: options[key] for key in ("-c", "-np", "-ngl", "--cache-ram")} == {
        "-c": "8192", "-np": "2", "-ngl": "0", "--cache-ram": "0",
    }  # fmt: skip
    assert {"--no-ui", "--offline", "--no-repack"} <= set(argv)
    assert not {"--tools", "--agent", "--models-dir"} & set(argv)
    assert made.variables(TASK)["CUDA_VISIBLE_DEVICES"] == ""
    assert made.variables(CARD)["CUDA_VISIBLE_DEVICES"] == "GPU-1"


def test_vllm_gets_the_share_of_the_card_that_is_claimed(tmp_path: Path) -> None:
    argv = packaged(tmp_path, "vllm").argv(CARD)

    assert argv[argv.index("--gpu-memory-utilization") + 1] == "0.750"
    assert argv[argv.index("--uds") + 1] == str(TASK.socket)


@pytest.mark.parametrize(
    ("claim", "share"), [(2, "0.666"), (1999, "0.999"), (3, "1.000"), (4, "1.000"), (0, "0.000")]
)
def test_the_share_is_never_more_than_what_is_claimed(claim: int, share: str) -> None:
    total = 3 if claim < 5 else 2000
    assert engine(Exec="/bin/x %f").argv(CARD._replace(claim=claim, total=total)) == ["/bin/x", share]


def test_a_card_without_a_uuid_is_refused_to_an_engine_that_names_it() -> None:
    unknown = CARD._replace(uuid="")

    assert engine(Exec="/bin/x %%u").argv(unknown) == ["/bin/x", "%u"]
    with pytest.raises(BadInput, match="selects its card by UUID"):
        engine(Exec="/bin/x", Environment="A=%u").variables(unknown)


def test_whether_it_selects_its_card_by_uuid_is_reported() -> None:
    assert engine(Exec="/bin/x", Environment="A=%u").view().selects_by_uuid
    assert engine(Exec="/bin/x --card %u").view().selects_by_uuid
    assert not engine(Exec="/bin/x %%u -ngl %g").view().selects_by_uuid


def test_environment_adds_up_and_an_empty_assignment_begins_anew() -> None:
    made = engine(Environment="A=1 'B=two words'").assign("Environment", "A=3 C=%a")
    assert made.variables(TASK) == {"B": "two words", "A": "3", "C": "Bee 1"}
    assert made.assign("Environment", "").environment == ()
    assert engine(Formats="gguf").assign("Formats", "safetensors gguf").formats == ("gguf", "safetensors")
    assert engine(Exec="/bin/x").assign("Exec", "").command == ()


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        ("Exec", "llama-server %m", "must begin with an absolute path"),
        ("Exec", "/bin/%m", "may have no specifier"),
        ("Exec", "/bin/x %q", "unknown specifier %q"),
        ("Exec", "/bin/x 'y", "that is not closed"),
        ("Formats", "gguf onnx", "unknown format 'onnx'"),
        ("Ready", "health", "must be the path"),
        ("Ready", "/a b", "must be the path"),
        ("Socket", "udp", "must be 'unix' or 'tcp'"),
        ("Environment", "1A=x", "must be NAME=value"),
        ("Environment", "A", "must be NAME=value"),
        ("Estimate", "guess", "absolute path"),
        ("Estimate", "/bin/x %s", "may not have %s, the Unix socket"),
        ("Estimate", "/bin/x %u", "may not have %u"),
        ("Estimate", "/bin/x a%fb", "may not have %f"),
        ("Execs", "x", "is not a key"),
    ],
)
def test_what_a_key_may_not_have_is_refused(key: str, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        engine(**{key: text})


def test_the_program_must_be_there_for_a_user_that_is_nobody_s(tmp_path: Path) -> None:
    made = engine(Exec="/opt/x", Formats="gguf")
    program = tmp_path / "opt/x"

    assert made.problem(tmp_path) == "/opt/x was not found (No such file or directory)"
    program.mkdir(parents=True)
    assert made.problem(tmp_path) == "/opt/x is not a regular file"
    program.rmdir()
    program.touch(0o750)
    assert made.problem(tmp_path) == "/opt/x may not be executed by others (its mode is -rwxr-x---)"
    program.chmod(0o755)
    assert made.problem(tmp_path) is None
    view = made.view(tmp_path)
    assert (view.name, view.executable, view.formats, view.problem) == ("test", "/opt/x", ("gguf",), None)


def test_the_command_that_says_what_a_model_needs_knows_model_context_and_kind_of_device() -> None:
    command = "/bin/x %m %a %c %C %n %t %d %g 100%%"
    made = engine(Estimate=command, Environment="CUDA_VISIBLE_DEVICES=%u A=%d%s%f")
    ram = made.question(Path("/m"), "bee", 512, threads=3, kind="ram")
    gpu = made.question(Path("/m"), "bee", 512, threads=3, kind="gpu")

    assert ram.argv == ("/bin/x", "/m", "bee", "512", "512", "1", "3", "cpu", "0", "100%")
    assert gpu.argv[-3:] == ("gpu", "999", "100%")
    assert gpu.environment == (("CUDA_VISIBLE_DEVICES", ""), ("A", "gpu"))
