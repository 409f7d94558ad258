"""One model, as clients see it."""

from __future__ import annotations

from rbee.queen.models.model import Model
from rbee.wire.models import ModelView
from tests.unit.queen.models.rows import FETCHED


def test_clients_see_the_row_and_what_was_learned() -> None:
    view = Model(FETCHED).view(7)

    shown = view._asdict() | {"fetch": FETCHED.fetch}
    assert isinstance(view, ModelView)
    assert shown.pop("learned_bytes") == 7
    assert shown.pop("progress") is None
    assert shown.pop("engine_says") is None
    assert shown == FETCHED._asdict()


def test_there_is_progress_only_while_it_is_fetched() -> None:
    model = Model(FETCHED._replace(state="fetching"))
    model.progress = 62.5
    assert model.view(None).progress == 62.5

    model.row = FETCHED
    assert model.view(None).progress is None
