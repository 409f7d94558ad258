"""Who may ask for what over the queen's socket."""

from __future__ import annotations

import os

import pytest

from rbee.errors import NotPermitted
from rbee.queen.api.admission import Admission
from rbee.server.peer import Peer
from rbee.wire.routes import LeaseRoutes, QueenRoutes, Route

pytestmark = pytest.mark.deadline(10)


HIVE_UID = 990
ME, ROOT, HIVE, SOMEBODY = os.geteuid(), 0, HIVE_UID, 1000


# Who may


@pytest.mark.parametrize("route", QueenRoutes.ALL, ids=lambda route: route.name)
@pytest.mark.parametrize(
    ("uid", "hive_uid", "may_beat", "may_the_rest"),
    [
        (ROOT, HIVE_UID, True, True),
        (HIVE, HIVE_UID, True, False),
        (SOMEBODY, HIVE_UID, False, True),
        (SOMEBODY, None, False, True),
        (ROOT, None, True, True),
    ],
    ids=["root", "the hive", "somebody", "somebody where no hive is", "root where no hive is"],
)
def test_the_hive_may_only_beat_nobody_else_may_and_root_may_all(
    uid: int, hive_uid: int | None, may_beat: bool, may_the_rest: bool, route: Route
) -> None:
    may = may_beat if route is QueenRoutes.HEARTBEAT else may_the_rest
    try:
        Admission(hive_uid)(Peer(42, uid, 5), route)
        is_admitted = True
    except NotPermitted:
        is_admitted = False

    assert is_admitted == may


@pytest.mark.parametrize("route", QueenRoutes.ALL, ids=lambda route: route.name)
def test_in_an_rbee_of_a_user_that_user_may_all(route: Route) -> None:
    Admission(SOMEBODY, own_uid=SOMEBODY)(Peer(42, SOMEBODY, 5), route)


def test_the_group_of_a_peer_makes_no_operator_of_the_hive() -> None:
    with pytest.raises(NotPermitted, match="may send heartbeats only"):
        Admission(HIVE_UID)(Peer(42, HIVE_UID, 0), QueenRoutes.ADD_HIVE)


def test_a_hive_s_user_that_comes_while_the_queen_is_awake_is_no_operator_either() -> None:
    uids = iter([None, HIVE_UID])
    admit = Admission(None, lambda: next(uids))

    admit(Peer(42, SOMEBODY, 5), QueenRoutes.ADD_HIVE)
    with pytest.raises(NotPermitted, match="may send heartbeats only"):
        admit(Peer(43, HIVE_UID, 5), QueenRoutes.ADD_HIVE)
    admit(Peer(43, HIVE_UID, 5), QueenRoutes.HEARTBEAT)


GATEWAY = 991


@pytest.mark.parametrize("route", [*QueenRoutes.ALL, *LeaseRoutes.ALL], ids=lambda route: route.name)
@pytest.mark.parametrize("uid", [GATEWAY, SOMEBODY, ROOT, HIVE])
def test_the_gateway_may_lease_and_ask_for_health_and_nobody_but_root_may_lease(
    uid: int, route: Route
) -> None:
    admit = Admission(HIVE_UID, find_gateway_uid=lambda: GATEWAY)
    of_gateway = route in LeaseRoutes.ALL
    if uid == GATEWAY:
        may = of_gateway or route is QueenRoutes.HEALTH
    elif uid == ROOT:
        may = True
    elif uid == HIVE:
        may = route is QueenRoutes.HEARTBEAT
    else:
        may = not of_gateway and route is not QueenRoutes.HEARTBEAT

    try:
        admit(Peer(42, uid, 5), route)
        is_admitted = True
    except NotPermitted:
        is_admitted = False
    assert is_admitted == may


@pytest.mark.parametrize("route", LeaseRoutes.ALL, ids=lambda route: route.name)
def test_in_an_rbee_of_a_user_the_gateway_is_that_user_s(route: Route) -> None:
    Admission(SOMEBODY, find_gateway_uid=lambda: SOMEBODY, own_uid=SOMEBODY)(Peer(42, SOMEBODY, 5), route)
