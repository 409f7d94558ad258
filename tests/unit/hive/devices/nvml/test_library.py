"""What NVML's errors mean, and a card of which not all is known."""

from __future__ import annotations

import pytest

from rbee.hive.devices.nvml.answers import Implausible
from rbee.hive.devices.nvml.library import LATE, OpenCard, code_of, explain, failure_of
from tests.unit.hive.devices.nvml.played_nvml import Refused


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (4, "no-permission"),
        (17, "no-permission"),
        (9, "driver-not-loaded"),
        (12, "library-missing"),
        (13, "driver-mismatch"),
        (18, "driver-mismatch"),
        (999, "unknown"),
        (15, "failed"),
    ],
)
def test_a_return_code_is_a_cause(code: int, cause: str) -> None:
    failure = failure_of("nvmlInit", Refused(code))

    assert (failure.cause, failure.detail) == (cause, f"nvmlInit: Error {code} (NVML error {code})")


def test_a_function_that_the_driver_lacks_is_a_mismatch_though_the_error_has_no_code() -> None:
    failure = failure_of("nvmlInit", Exception("Function Not Found"))

    assert (failure.cause, failure.detail) == ("driver-mismatch", "nvmlInit: Function Not Found")


def test_an_error_of_our_own_has_no_code_of_nvml_s() -> None:
    not_text = UnicodeDecodeError("utf-8", b"\xe9", 0, 1, "x")

    assert [code_of(error) for error in (Implausible("2 is not a possible value"), not_text)] == [-1, -1]
    assert failure_of("x", Implausible("2 is not a possible value")).cause == "failed"
    assert explain(not_text) == "the driver's answer is not text"


def test_what_the_dynamic_loader_said_is_told_with_it() -> None:
    error = Refused(12)
    error.__context__ = OSError("libnvidia-ml.so.1: cannot open\n")

    assert explain(error) == "Error 12: libnvidia-ml.so.1: cannot open (NVML error 12)"


def test_an_error_without_words_is_named() -> None:
    assert explain(Implausible()) == "Implausible"


def test_a_card_that_is_not_whole_says_that_nvml_was_late() -> None:
    card = OpenCard(pci_address="0000:01:00.0", uuid="GPU-a")
    card.complain("name: x")

    assert card.so_far().problems == ("name: x", LATE)
    card.is_whole = True
    assert card.so_far().problems == ("name: x",)
