import numpy as np
import pytest
from PIL import Image
from synthetic_latency import SETUP, block_records, head_and_stem_records, network_records, random_blocks

from netlathe.predictor import CrossValidation, TooFewRecordsError, cross_validate, plot_validation
from netlathe.predictor.validation.metrics import LEVELS, Predictions

RECORDS = block_records(random_blocks(30), noise=0.03) + head_and_stem_records()


def pixels_of(validation, path):
    plot_validation(validation, path)
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize("networks", [0, 5])
def test_the_picture_shows_points_of_each_kind(networks, tmp_path):
    records = RECORDS + network_records(range(networks), 1.1, 0.3)
    found = cross_validate(records, folds=3, residual="none", splits=["configuration", "network"])
    pixels = pixels_of(found, tmp_path / "plot.png")
    height, width = pixels.shape[:2]
    assert width > 2 * height >= 1400
    for third in range(3):  # each of the panels shows both
        part = pixels[:, third * width // 3 : (third + 1) * width // 3]
        blue, red = part[..., 2] - part[..., 0], part[..., 0] - part[..., 2]
        assert (blue > 80).sum() > 300
        assert ((red > 80).sum() > 100) == bool(networks)


def by_hand(measured_over_predicted, half_width=0.1):
    n = len(measured_over_predicted)
    predicted = np.linspace(1, 2, n)
    points = Predictions(
        ("x",) * n, ("mbconv k3",) * n, predicted * measured_over_predicted, predicted,
        np.full((n, len(LEVELS)), half_width),
    )  # fmt: skip
    return CrossValidation(SETUP, {"configuration": points}, {}, (), (), None)


@pytest.mark.parametrize("case", [by_hand(np.ones(1)), by_hand(np.full(9, 50.0)), by_hand(np.ones(9), 4.6)])
def test_extreme_results_can_be_drawn(case, tmp_path):
    assert pixels_of(case, tmp_path / "plot.png").std() > 0


def test_nothing_held_out_is_nothing_to_draw(tmp_path):
    with pytest.raises(TooFewRecordsError, match="nothing to draw"):
        plot_validation(cross_validate(RECORDS[:3], residual="none"), tmp_path / "plot.png")
    assert not (tmp_path / "plot.png").exists()
