"""All checks, in the order in which they run: a cause before its consequences.

The system bus is checked before all of them, because they use it.
"""

from __future__ import annotations

from rbee.keeper.doctor.catalog import check_catalog
from rbee.keeper.doctor.check import Check
from rbee.keeper.doctor.configuration import check_configuration
from rbee.keeper.doctor.gateway import check_gateway, has_gateway
from rbee.keeper.doctor.group import check_group
from rbee.keeper.doctor.keys import check_keys
from rbee.keeper.doctor.link import check_link
from rbee.keeper.doctor.patient import Patient
from rbee.keeper.doctor.polkit import check_polkit
from rbee.keeper.doctor.queens import check_queens
from rbee.keeper.doctor.serving import check_serving, has_queen_awake
from rbee.keeper.doctor.sockets import check_sockets
from rbee.keeper.doctor.store import check_store, has_store
from rbee.keeper.doctor.units import check_units


def _of_system(patient: Patient) -> bool:
    return patient.scope.kind == "system"


CHECKS = (
    Check("polkit", "polkit answers", check_polkit, is_of_use=_of_system),
    Check("group", "users and groups are as they should be", check_group, is_of_use=_of_system),
    Check("units", "the units are there, and none has failed", check_units),
    Check("sockets", "sockets are listening", check_sockets),
    Check("configuration", "the configuration can be used", check_configuration),
    Check("queens", "the hive of this machine has one queen", check_queens),
    Check(
        "catalog",
        "the queen can write its catalog",
        check_catalog,
        is_of_use=lambda patient: patient.is_installed(patient.queen),
    ),
    Check("keys", "keys and certificates are valid by this clock", check_keys),
    Check(
        "link",
        "this hive is connected to its queen",
        check_link,
        is_of_use=lambda patient: patient.programs == [patient.hive],
    ),
    Check("gateway", "the gateway's sockets are as they should be", check_gateway, is_of_use=has_gateway),
    Check(
        "serving",
        "models, engines and workers are as they should be",
        check_serving,
        is_of_use=has_queen_awake,
    ),
    Check("store", "there is room for models", check_store, is_of_use=has_store),
)
