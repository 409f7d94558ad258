"""Fetching from web servers as they are: they cut, change the file, lie about its length, answer pages."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rbee.fetch.errors import (
    BadRequest,
    Forbidden,
    NoRoom,
    NotAModel,
    NotThere,
    Unavailable,
    Verdict,
)
from rbee.fetch.transfer import Patience, World
from rbee.fetch.work import Works
from rbee.modelfile.progress import Progress
from rbee.modelfile.store import FetchResult, Store
from rbee.wire.models import Fetch
from tests.file_server import Faults, FileServer, served
from tests.model_files import gguf

MODEL = gguf(tensors=(("token_embd.weight", (64, 8192), 1),))
OTHER = gguf({"llama.context_length": (4, 4096)}, tensors=(("token_embd.weight", (64, 8192), 1),))
SUM = hashlib.sha256(MODEL).hexdigest()
QUICK = Patience(tries=4, progress=50_000, first_wait=0.001, longest_wait=0.002)


class Fetcher:
    """Fetches into a store; what was reported is in `said`, what was waited for in `waits`."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder)
        self.said: list[Progress] = []
        self.waits: list[float] = []
        self.room = 2**40
        self.boot_id = "this boot"
        self.heard: Callable[[Progress], None] = self.said.append

    def fetch(self, url: str, sha256: str | None = SUM, patience: Patience = QUICK) -> FetchResult:
        world = World(lambda: self.room, lambda one: self.heard(one), wait=self.waits.append)
        works = Works(self.store, world, self.boot_id, patience)
        return works.fetch(Fetch("one", "bee", url, sha256))

    def refused(self, kind: type[Verdict], url: str, sha256: str | None = SUM) -> str:
        with pytest.raises(Verdict) as refusal:
            self.fetch(url, sha256)
        assert type(refusal.value) is kind, refusal.value
        result = self.store.read_result("one")
        assert result is not None
        assert result.state == "failed"
        assert result.reason.startswith(refusal.value.message)
        assert self.has_part == kind.keeps_part or result.bytes == 0
        return result.reason

    @property
    def has_part(self) -> bool:
        return self.store.part("one").exists()

    def check_whole(self, result: FetchResult, content: bytes = MODEL) -> None:
        sha256 = hashlib.sha256(content).hexdigest()
        assert result == FetchResult("bee", "done", "", len(content), sha256)
        path = self.store.file(sha256)
        assert path is not None
        assert path.read_bytes() == content
        meta = self.store.read_meta(sha256)
        assert meta is not None
        assert (meta.bytes, meta.head.architecture) == (len(content), "llama")
        assert sorted(os.listdir(self.store.folder)) == sorted([sha256, "fetches"])
        assert os.listdir(self.store.fetches) == ["one.result"]
        assert self.store.read_result("one") == result


@pytest.fixture
def fetcher(tmp_path: Path) -> Fetcher:
    return Fetcher(tmp_path)


def ranges(server: FileServer) -> list[str | None]:
    return [wanted for wanted, _ in server.asked]


def test_a_file_is_fetched_with_its_sum_and_its_head(fetcher: Fetcher) -> None:
    with served(MODEL) as server:
        fetcher.check_whole(fetcher.fetch(server.url))

    assert ranges(server) == [None]
    assert fetcher.said[-1] == Progress(len(MODEL), len(MODEL))


def test_one_that_is_there_is_not_fetched_again(fetcher: Fetcher) -> None:
    with served(MODEL) as server:
        fetcher.fetch(server.url)
        fetcher.check_whole(fetcher.fetch(server.url))

    assert len(server.asked) == 1


def test_a_server_that_cuts_is_asked_for_the_rest(fetcher: Fetcher) -> None:
    with served(MODEL, Faults(cut=300_000)) as server:
        fetcher.check_whole(fetcher.fetch(server.url))

    assert ranges(server) == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]
    assert {condition for _, condition in server.asked[1:]} != {None}


def test_cuts_without_end_end_if_there_is_progress_and_otherwise_not(fetcher: Fetcher) -> None:
    with served(MODEL, Faults(cut=20_000)) as server:
        fetcher.check_whole(fetcher.fetch(server.url))
    assert len(server.asked) == -(-len(MODEL) // 20_000)

    with served(OTHER, Faults(cut=1_000)) as server:
        assert "the connection was lost" in fetcher.refused(Unavailable, server.url, "0" * 64)
    assert len(server.asked) == QUICK.tries + 1
    assert fetcher.has_part


def test_waits_grow_without_progress(fetcher: Fetcher) -> None:
    patience = Patience(tries=6, first_wait=0.5, longest_wait=4)
    with served(MODEL, Faults(statuses=[503] * 5, headers={"Retry-After": "3"})) as server:
        fetcher.fetch(server.url, patience=patience)

    assert fetcher.waits == [3, 3, 3, 4, 4]
    assert fetcher.said[0].note == "the server answers 503 Service Unavailable; next try in 3 s"


def test_a_server_without_ranges_is_asked_for_all_again(fetcher: Fetcher) -> None:
    with served(MODEL, Faults(ranges=False)) as server:
        server.faults.cut = 500_000

        def heard(_progress: Progress) -> None:
            if len(server.asked) > 2:
                server.faults.cut = 0

        fetcher.heard = heard
        fetcher.check_whole(fetcher.fetch(server.url))

    assert ranges(server)[:3] == [None, "bytes=500000-", "bytes=500000-"]


def test_a_server_without_ranges_that_always_cuts_is_given_up(fetcher: Fetcher) -> None:
    with served(MODEL, Faults(ranges=False, cut=500_000)) as server:
        fetcher.refused(Unavailable, server.url)


@pytest.mark.parametrize("knows_if_range", [True, False])
def test_a_file_that_changes_is_fetched_anew(fetcher: Fetcher, *, knows_if_range: bool) -> None:
    faults = Faults(cut=700_000, change_after=1, if_range=knows_if_range)
    with served(MODEL, faults, other=OTHER) as server:
        fetcher.check_whole(fetcher.fetch(server.url, hashlib.sha256(OTHER).hexdigest()), OTHER)


def test_without_a_version_nothing_is_resumed_unless_a_sum_proves_it(fetcher: Fetcher) -> None:
    with served(MODEL, Faults(cut=700_000, tag=False)) as server:
        fetcher.check_whole(fetcher.fetch(server.url))
    assert ranges(server) == [None, "bytes=700000-"]


def test_a_mix_of_two_versions_is_noticed_by_the_sum_and_fetched_once_more(fetcher: Fetcher) -> None:
    with served(OTHER, Faults(cut=700_000, tag=False, statuses=[0] + [500] * 9)) as server:
        fetcher.refused(Unavailable, server.url)
        assert fetcher.has_part
        server.faults.statuses = []
        server.faults.cut = 0
        server.content = MODEL
        fetcher.check_whole(fetcher.fetch(server.url))


@pytest.mark.parametrize("promise", [100, -100])
def test_a_server_that_lies_about_the_length_is_found_out(fetcher: Fetcher, promise: int) -> None:
    with served(MODEL, Faults(promise=promise)) as server:
        if promise > 0:
            fetcher.check_whole(fetcher.fetch(server.url))
        else:
            assert "truncated" in fetcher.refused(NotAModel, server.url)


def test_a_length_that_nobody_names_is_no_hindrance(fetcher: Fetcher) -> None:
    with served(MODEL, Faults(length=False)) as server:
        fetcher.check_whole(fetcher.fetch(server.url))

    assert fetcher.said[0].total is None


def test_a_page_is_refused_and_removed(fetcher: Fetcher) -> None:
    with served(MODEL, Faults(html=True)) as server:
        assert "web page" in fetcher.refused(NotAModel, server.url)


def test_a_page_in_place_of_the_rest_does_not_take_what_has_arrived(fetcher: Fetcher) -> None:
    with served(MODEL, Faults(cut=700_000, html_on_resume=True)) as server:
        fetcher.check_whole(fetcher.fetch(server.url))

    assert ranges(server) == [None, "bytes=700000-", "bytes=700000-"]


def test_what_is_no_model_is_refused_long_before_it_has_arrived(fetcher: Fetcher) -> None:
    with served(b"PK\x03\x04" + bytes(30_000_000), Faults(slow=0.001)) as server:
        assert "PyTorch" in fetcher.refused(NotAModel, server.url)
    assert max(one.bytes for one in fetcher.said) < 1_000_000

    cut = gguf(tensors=[(f"t{number}", (4096, 4096), 1) for number in range(1)])[:2_000_000]
    with served(cut) as server:
        assert "its tensors need" in fetcher.refused(NotAModel, server.url)


def test_a_wrong_sum_is_refused_and_the_file_removed(fetcher: Fetcher) -> None:
    with served(MODEL) as server:
        assert f"is {SUM}, and not {'0' * 64}" in fetcher.refused(NotAModel, server.url, "0" * 64)

    assert os.listdir(fetcher.store.folder) == ["fetches"]
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, Forbidden), (403, Forbidden), (404, NotThere), (410, NotThere), (418, Unavailable)],
)
def test_a_refusal_is_final(fetcher: Fetcher, status: int, kind: type[Verdict]) -> None:
    with served(MODEL, Faults(statuses=[status])) as server:
        assert f"the server answers {status}" in fetcher.refused(kind, server.url)
    assert len(server.asked) == 1


def test_a_disk_that_is_too_small_is_named_before_anything_is_written(fetcher: Fetcher) -> None:
    fetcher.room = 1000
    with served(MODEL) as server:
        reason = fetcher.refused(NoRoom, server.url)

    assert f"it needs {len(MODEL)} more bytes, and there are 1000 available" in reason
    assert not fetcher.has_part


def test_a_process_that_was_killed_goes_on_where_it_was(fetcher: Fetcher) -> None:
    with served(MODEL, Faults(cut=700_000)) as server:

        def die(progress: Progress) -> None:
            if progress.bytes >= 700_000:
                raise KeyboardInterrupt

        fetcher.heard = die
        with pytest.raises(KeyboardInterrupt):
            fetcher.fetch(server.url)
        fetcher.heard = fetcher.said.append
        fetcher.check_whole(fetcher.fetch(server.url))

    assert ranges(server) == [None, "bytes=700000-"]
    assert Progress(700_000, None, "reading what has arrived before") in fetcher.said


def test_after_a_crash_of_the_machine_only_what_was_synced_counts(fetcher: Fetcher) -> None:
    with served(MODEL, Faults(cut=700_000, statuses=[0] + [500] * 9)) as server:
        fetcher.refused(Unavailable, server.url)
        server.faults.statuses = []
        server.faults.cut = 0
        fetcher.boot_id = "the next boot"
        server.asked.clear()
        fetcher.check_whole(fetcher.fetch(server.url))

    assert ranges(server) == [None]


def test_http_needs_a_sum_and_so_does_a_redirect_to_it(fetcher: Fetcher) -> None:
    with served(MODEL) as server:
        assert "could be replaced on its way" in fetcher.refused(BadRequest, server.url, None)
    assert server.asked == []


def test_a_redirect_is_followed_and_one_to_elsewhere_is_not(fetcher: Fetcher) -> None:
    with served(MODEL) as server, served(b"", Faults(redirect=server.url)) as first:
        fetcher.check_whole(fetcher.fetch(first.url))
        first.faults.redirect = "ftp://127.0.0.1/x"
        assert "neither http nor https" in fetcher.refused(Unavailable, first.url, "0" * 64)
        first.faults.redirect = first.url
        assert "TooManyRedirects" in fetcher.refused(Unavailable, first.url, "0" * 64)


def test_a_compressed_file_is_refused(fetcher: Fetcher) -> None:
    with served(MODEL, Faults(compressed=True)) as server:
        assert "compresses" in fetcher.refused(Unavailable, server.url)


def test_a_password_goes_to_the_server_and_nowhere_else(
    fetcher: Fetcher, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with served(MODEL, Faults(user="Basic YWRhOnNlY3JldA==", cut=700_000)) as server:
        secret = server.url.replace("http://", "http://ada:secret@") + "?token=hidden"
        fetcher.check_whole(fetcher.fetch(secret))
        server.faults.statuses = [404]
        reason = fetcher.refused(NotThere, secret, "0" * 64)

    told = [reason, *(one.text() for one in fetcher.said), *capfd.readouterr()]
    told += [record.getMessage() for record in caplog.records if record.name != "httpx"]
    told += [
        path.read_text() for path in fetcher.store.folder.rglob("*") if path.suffix in (".json", ".result")
    ]
    assert [one for one in told if "secret" in one or "hidden" in one or "YWRhOnNlY3JldA" in one] == []


def test_a_server_that_is_not_there_is_given_up(fetcher: Fetcher) -> None:
    with served(MODEL) as server:
        pass

    assert "is unreachable" in fetcher.refused(Unavailable, server.url)
