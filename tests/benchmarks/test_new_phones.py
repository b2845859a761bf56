"""The picture of the README: its arithmetic, and that the documents say what it shows."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from scripts.draw_new_phones import Predicted, draw, predict_new_phones
from scripts.latency_tables import phones49
from tests.documents import ROOT


def test_shares_within_ten_percent_are_of_the_measurement() -> None:
    measured = np.array([10.0, 10.0, 10.0, 10.0])
    predicted = Predicted(measured, np.array([9.1, 10.9, 11.1, 8.9]), np.array([10.0, 9.5, 10.5, 20.0]))
    assert predicted.within_10() == (50.0, 75.0)


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    measured = np.geomspace(5, 500, 20)
    draw(Predicted(measured, 1.5 * measured, measured), tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_results_say_what_the_picture_shows() -> None:
    text = " ".join((ROOT / "docs" / "results.md").read_text().split())
    told = re.search(r"one draw: ([\d.]+) % within ±10 %. By FLOPs \(.*?\), ([\d.]+) %", text)
    assert told
    by_flops, by_netlathe = predict_new_phones(phones49()).within_10()
    assert (float(told[1]), float(told[2])) == pytest.approx((by_netlathe, by_flops), abs=0.5)
