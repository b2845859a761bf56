"""DeviceFarmer's REST interface, against a stand-in on 127.0.0.1, and a loopback phone behind it."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from loopback.adbd import AdbDaemon
from loopback.phone import BENCHMARK_MODEL, LoopbackPhone, loopback_unavailable

from netlathe.profiler.devices import DeviceOptions
from netlathe.profiler.errors import ConnectionLostError, DeviceError
from netlathe.profiler.pool.farm import Farm, FarmMember
from netlathe.profiler.pool.pool_file import read_pool

TOKEN = "a-token"


class StandIn(ThreadingHTTPServer):
    """A farm of three phones: A and B are Pixels, of which B is not plugged in, and C a Galaxy that somebody uses."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.models = {"A": "Pixel 8", "B": "Pixel 8", "C": "Galaxy"}
        self.owners: dict[str, str] = {"C": "somebody"}
        self.place = "127.0.0.1:1"
        self.calls: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: StandIn

    def log_message(self, *_):
        pass

    def answer(self, code: int, **content) -> None:
        body = json.dumps({"success": code == 200, **content}).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle_any(self) -> None:
        farm, path = self.server, self.path.removeprefix("/api/v1/")
        farm.calls.append(f"{self.command} {path}")
        content = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
        serial = content.get("serial") or (path.split("/")[2] if path.count("/") > 1 else "")
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            self.answer(401, description="Bad Access Token")
        elif path == "devices":
            rows = [{"serial": key, "model": model, "present": key != "B"} for key, model in farm.models.items()]
            self.answer(200, devices=rows)
        elif path == "user/devices" and farm.owners.get(serial):
            self.answer(403, description="Device is being used or not available")
        elif path == "user/devices":
            farm.owners[serial] = "me"
            self.answer(200, description="Device successfully added")
        elif farm.owners.get(serial) != "me":
            self.answer(403, description="You cannot access this device. Not owned by you")
        elif self.command == "POST":
            self.answer(200, remoteConnectUrl=farm.place)
        else:
            if not path.endswith("remoteConnect"):
                del farm.owners[serial]
            self.answer(200, description="done")

    do_GET = do_POST = do_DELETE = handle_any  # noqa: N815


@pytest.fixture
def farm(monkeypatch):
    monkeypatch.setenv("FARM_TOKEN", TOKEN)
    with StandIn() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def member(farm: StandIn, serial: str) -> FarmMember:
    return FarmMember(Farm(farm.url, "FARM_TOKEN"), serial, DeviceOptions(benchmark_binary=BENCHMARK_MODEL))


def test_phones_that_are_plugged_in_are_listed_by_model(farm):
    found = Farm(farm.url, "FARM_TOKEN")
    assert found.phones() == ["A", "C"]
    assert found.phones(["Pixel 8"]) == ["A"]


@pytest.mark.skipif(loopback_unavailable() is not None, reason=str(loopback_unavailable()))
def test_a_phone_is_reserved_opened_and_released(farm, tmp_path):
    with LoopbackPhone(tmp_path / "phone") as phone, AdbDaemon(phone) as daemon:
        farm.place = daemon.address.removeprefix("tcp:")
        with member(farm, "A").open(lambda message: None) as device:
            assert farm.owners["A"] == "me"
            assert device.setup.device == "Google Pixel 8"
    assert farm.calls == [
        "POST user/devices", "POST user/devices/A/remoteConnect", "DELETE user/devices/A/remoteConnect",
        "DELETE user/devices/A",
    ]  # fmt: skip
    assert farm.owners == {"C": "somebody"}


def test_a_phone_that_somebody_uses_is_away_and_left_alone(farm):
    with pytest.raises(ConnectionLostError, match="being used"), member(farm, "C").open(lambda message: None):
        pass
    assert farm.owners == {"C": "somebody"}


def test_a_phone_that_cannot_be_reached_is_released(farm):
    with pytest.raises(DeviceError), member(farm, "A").open(lambda message: None):
        pass
    assert farm.owners == {"C": "somebody"}


def test_a_farm_of_a_pool_s_file_gives_its_phones(farm, tmp_path):
    path = tmp_path / "pool.toml"
    path.write_text(f'[[farm]]\nurl = "{farm.url}"\ntoken_variable = "FARM_TOKEN"\nmodels = ["Pixel 8"]\n')
    (found,) = read_pool(path, DeviceOptions())
    assert found.name == f"127.0.0.1:{farm.server_port}:A"


def test_tokens_that_are_missing_or_refused_are_said(farm, monkeypatch):
    monkeypatch.setenv("OTHER", "old")
    with pytest.raises(DeviceError, match=r"refuses the token in OTHER \(Bad Access Token\)"):
        Farm(farm.url, "OTHER").phones()
    with pytest.raises(DeviceError, match="set NOWHERE to an access token"):
        Farm(farm.url, "NOWHERE").phones()


def test_what_is_no_farm_is_said(monkeypatch):
    monkeypatch.setenv("FARM_TOKEN", TOKEN)
    with pytest.raises(ConnectionLostError, match="does not answer"):
        Farm("http://127.0.0.1:1", "FARM_TOKEN").phones()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[[farm]]\nurl = "https://a"', "farm 1: has no token_variable"),
        ('[[farm]]\nurl = "ftp://a"\ntoken_variable = "T"', "url must begin with https"),
        ('[[farm]]\nurl = "https://a"\ntoken = "secret"', "has no key 'token'"),
        ("farm = [1]", "two brackets"),
    ],
)
def test_farms_that_are_not_named_fully_are_refused(tmp_path, text, words):
    path = tmp_path / "pool.toml"
    path.write_text(text)
    with pytest.raises(DeviceError, match=words):
        read_pool(path, DeviceOptions())
