"""Who may have how many: one process, one user, all together, and those who always get through."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from rbee.errors import TooMany
from rbee.server.peer import Peer
from rbee.server.places import Bound, Places

ADA, BOB, HIVE, ROOT = 1000, 1001, 998, 0

BOUND = Bound(total=10, kept=3, a_user=6, a_process=4)


def places() -> Places:
    return Places("seats are taken", BOUND, daemons=(HIVE,))


def take(places: Places, uid: int, pids: Iterable[int]) -> int:
    """How many of these processes get a place."""
    taken = 0
    for pid in pids:
        try:
            places.take(Peer(pid, uid, uid))
        except TooMany:
            continue
        taken += 1
    return taken


@pytest.mark.parametrize("uid", [ADA, HIVE, ROOT])
def test_a_process_has_its_share_and_leaves_the_rest_to_others_of_its_user(uid: int) -> None:
    seats = places()

    assert take(seats, uid, [7] * 9) == 4
    assert take(seats, uid, [8]) == 1


def test_a_user_has_a_share_and_leaves_the_rest_to_others() -> None:
    seats = places()

    assert take(seats, ADA, range(9)) == 6
    assert take(seats, BOB, range(9)) == 4
    assert take(seats, ADA, [99]) + take(seats, BOB, [99]) == 0


@pytest.mark.parametrize("uid", [ROOT, HIVE])
def test_root_and_the_daemons_get_through_when_others_took_all(uid: int) -> None:
    seats = places()
    assert take(seats, ADA, range(9)) + take(seats, BOB, range(9)) == 10

    assert take(seats, uid, range(9)) == 3


def test_what_is_given_back_is_there_for_all_and_nothing_is_kept_of_who_is_gone() -> None:
    seats = places()
    for _ in range(3):
        assert take(seats, ADA, [7] * 4) == 4
        for _ in range(4):
            seats.give_back(Peer(7, ADA, ADA))

    assert seats.taken == 0
    assert not seats._by_process


@pytest.mark.parametrize(
    ("taken", "asks", "said"),
    [
        ([(ADA, 7)] * 4, (ADA, 7), "4 seats are taken by process 7, as many as one process may"),
        (
            [(ADA, pid) for pid in range(6)],
            (ADA, 9),
            "6 seats are taken by user 1000, as many as one user may",
        ),
        (
            [(ADA, pid) for pid in range(5)] + [(BOB, pid) for pid in range(5)],
            (BOB, 9),
            "10 seats are taken, as many as there may be",
        ),
    ],
)
def test_who_is_refused_is_told_which_limit_it_is(
    taken: list[tuple[int, int]], asks: tuple[int, int], said: str
) -> None:
    seats = places()
    for uid, pid in taken:
        seats.take(Peer(pid, uid, uid))

    with pytest.raises(TooMany) as caught:
        seats.take(Peer(asks[1], asks[0], asks[0]))

    assert (caught.value.message, caught.value.hint) == (said, "Close one and try again.")
    assert seats.taken == len(taken)
