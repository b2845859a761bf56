"""The phone that the device scripts see."""

from __future__ import annotations

from pathlib import Path

import pytest
from toybox_phone import SHELLS, ToyboxPhone


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def phone(tmp_path: Path) -> ToyboxPhone:
    return ToyboxPhone(tmp_path)
