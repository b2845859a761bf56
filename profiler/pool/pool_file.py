"""A file that lists the phones of a pool, in TOML.

[[phone]]
device = "usb:1A2B"             # as --device takes it
cores = "big"                   # its own, in place of what the command says for all

[[phone]]
device = "server@lab2:3C4D"     # of another computer's adb server

[[farm]]                        # DeviceFarmer
url = "https://farm.example.org"
token_variable = "STF_TOKEN"    # the environment variable that holds an access token
models = ["Pixel 8"]            # all models, unless some are named
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from netlathe.archspace.errors import did_you_mean
from netlathe.archspace.files import read_whole
from netlathe.profiler.adb.address import parse_address
from netlathe.profiler.devices import DeviceOptions
from netlathe.profiler.errors import DeviceError
from netlathe.profiler.pool.farm import Farm, FarmMember
from netlathe.profiler.pool.member import Member
from netlathe.profiler.pool.phones import PhoneMember

ENDING = ".toml"
MOST_BYTES = 1 << 20

PHONE_KEYS = {"device": str, "cores": str, "threads": int, "delegate": str, "max_thermal_status": int}
"""Keys of a phone, and the type of each."""
FARM_KEYS = {"url": str, "token_variable": str, "models": list}


def read_pool(path: Path, options: DeviceOptions) -> list[Member]:
    """The phones that the file lists, and those of the farms that it names, each with these options but for its own.
    Raises DeviceError for a file that cannot be read, or says what no pool has, and for a farm that does not answer."""
    try:
        content = tomllib.loads(read_whole(path, MOST_BYTES).decode())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DeviceError(f"{path}: this is not a pool in TOML ({error})") from error
    _check_keys(content, {"phone": list, "farm": list}, f"{path}")
    members: list[Member] = [
        _phone(table, options, f"{path}: phone {number}") for number, table in enumerate(content.get("phone", ()), 1)
    ]
    for number, table in enumerate(content.get("farm", ()), 1):
        members += _farm(table, options, f"{path}: farm {number}")
    if not members:
        raise DeviceError(f'{path}: lists no phone; write [[phone]] and device = "usb:SERIAL" for each')
    names = [member.name for member in members]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DeviceError(f"{path}: lists {', '.join(twice)} twice")
    return members


def _phone(table: Any, options: DeviceOptions, place: str) -> PhoneMember:
    if not isinstance(table, dict):
        raise DeviceError(f"{place}: write [[phone]], with two brackets, before its keys")
    _check_keys(table, PHONE_KEYS, place)
    if "device" not in table:
        raise DeviceError(f'{place}: has no device; write device = "usb:SERIAL"')
    own = {key: value for key, value in table.items() if key != "device"}
    try:
        address = str(parse_address(table["device"]))
    except DeviceError as error:
        raise DeviceError(f"{place}: {error}") from error
    return PhoneMember(address, dataclasses.replace(options, **own))


def _farm(table: Any, options: DeviceOptions, place: str) -> list[FarmMember]:
    if not isinstance(table, dict):
        raise DeviceError(f"{place}: write [[farm]], with two brackets, before its keys")
    _check_keys(table, FARM_KEYS, place)
    if missing := [key for key in ("url", "token_variable") if key not in table]:
        raise DeviceError(f"{place}: has no {' and no '.join(missing)}")
    if not table["url"].startswith(("https://", "http://")):
        raise DeviceError(f"{place}: url must begin with https:// or http://, got {table['url']!r:.60}")
    farm = Farm(table["url"], table["token_variable"])
    found = [FarmMember(farm, serial, options) for serial in farm.phones(table.get("models", ()))]
    if not found:
        raise DeviceError(f"{place}: has no such phone plugged in")
    return found


def _check_keys(table: Mapping[str, Any], known: Mapping[str, type], place: str) -> None:
    for key, value in table.items():
        if key not in known:
            raise DeviceError(
                f"{place}: has no key {key!r:.80}{did_you_mean(key, known)}; there are {', '.join(known)}"
            )
        if type(value) is not known[key]:
            raise DeviceError(f"{place}: {key} must be {known[key].__name__}, got {value!r:.60}")
