"""The names of cards out of Debian's own pci.ids, against what lspci calls them."""

from __future__ import annotations

import json

from testbed.debian import install_from_archive
from testbed.machine import Machine

# Of every device id that a vendor can give: lspci reads functions from a file, as many as a PCI
# segment holds, and names each.
COMPARE = """
import json, pathlib, shlex, subprocess, sys
from rbee.hive.devices.pci import AMD, INTEL, NVIDIA, names

def as_lspci_says(vendor):
    low = f"{vendor[2:]} {vendor[:2]}"
    with open("/tmp/functions", "w") as functions:
        for device in range(65536):
            place = f"{device >> 8:02x}:{device >> 3 & 31:02x}.{device & 7}"
            ids = f"{low} {device & 255:02x} {device >> 8:02x}"
            functions.write(f"{place} card\\n00: {ids} 00 00 00 00 00 00 00 03 00 00 00 00\\n")
            functions.writelines(f"{line}0: {' '.join(['00'] * 16)}\\n" for line in "123")
            functions.write("\\n")
    command = ["lspci", *sys.argv[1:], "-mm", "-F", "/tmp/functions"]
    told = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    said = (shlex.split(line)[3] for line in told.stdout.decode().splitlines())
    ours = ((f"{device:04x}", name) for device, name in enumerate(said))
    return {device: name for device, name in ours if name != f"Device {device}"}

def as_the_hive_says(vendor):
    wanted = [(vendor, f"{device:04x}") for device in range(65536)]
    return {device: name for (_, device), name in names(pathlib.Path("/"), wanted).items()}

for vendor in (NVIDIA, AMD, INTEL):
    expected, shown = as_lspci_says(vendor), as_the_hive_says(vendor)
    wrong = {d: (n, shown.get(d)) for d, n in expected.items() if shown.get(d) != n}
    told = {"vendor": vendor, "named": len(expected), "wrong": wrong, "extra": sorted({*shown} - {*expected})}
    print(json.dumps(told))
"""


def compare(machine: Machine, *lspci: str) -> None:
    """`lspci` are options that tell it where its names are."""
    done = machine.run("python3", "-c", COMPARE, *lspci, timeout=120)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(one["vendor"], one["wrong"], one["extra"]) for one in told] == [
        (vendor, {}, []) for vendor in ("10de", "1002", "8086")
    ]
    # It is the whole file that was compared, not an excerpt of it.
    assert all(one["named"] > 1000 for one in told)


def test_every_device_of_the_three_makers_is_named_as_lspci_names_it(machine: Machine) -> None:
    install_from_archive(machine, "pciutils")
    compare(machine)


def test_they_are_named_too_where_hwdata_has_the_file_itself(machine: Machine) -> None:
    # Debian's hwdata has a link to the package pci.ids; others keep the file there.
    install_from_archive(machine, "hwdata", "pciutils")
    machine.run("mv", "/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids")
    compare(machine, "-i", "/usr/share/hwdata/pci.ids")
