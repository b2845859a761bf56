"""The predictors that ship give the numbers that they gave before work terms were added: what is stored does not move.

stored_predictions.json holds (ms, low, high) of blocks and networks by each, and under "assumed" what --unknown price
gave where the predictor refuses, all computed with the terms that were known when they were fitted.
"""

import json
from pathlib import Path

import pytest

from netlathe.archspace.block_names import is_block_name, parse_block
from netlathe.archspace.networks import network
from netlathe.predictor import LatencyPredictor, UnknownOpError, shipped_names

STORED = json.loads(Path(__file__).with_name("stored_predictions.json").read_text())


def test_all_that_ship_are_compared():
    assert [*STORED] == shipped_names()
    assert all(len(items) >= 12 for items in STORED.values())


@pytest.mark.parametrize("name", STORED)
def test_a_shipped_predictor_predicts_what_it_did(name):
    predictor = LatencyPredictor.load(name)
    for item, stored in STORED[name].items():
        graph = (parse_block(item) if is_block_name(item) else network(item)).graph()
        expected = stored["assumed"] if isinstance(stored, dict) else stored
        if isinstance(stored, dict):
            with pytest.raises(UnknownOpError):
                predictor.predict([graph])
        asked = predictor.assuming() if isinstance(stored, dict) else predictor
        assert [values[0] for values in asked.predict_with_interval([graph])] == pytest.approx(expected, rel=1e-9)
        assert [asked.predict([graph])[0], *(bound[0] for bound in asked.predict_interval([graph]))] == pytest.approx(
            expected, rel=1e-9
        )
