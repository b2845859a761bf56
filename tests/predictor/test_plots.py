import numpy as np
import pytest
from PIL import Image
from synthetic_latency import block_records, head_and_stem_records, network_records, random_blocks

from predictor import cross_validate, plot_predicted_measured


@pytest.mark.parametrize("networks", [0, 5])
def test_the_picture_shows_points_of_each_kind(networks, tmp_path):
    records = block_records(random_blocks(30), noise=0.03) + head_and_stem_records()
    found = cross_validate(records + network_records(range(networks), 1.1, 0.3), 3, residual="none")
    plot_predicted_measured(found, tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert min(pixels.shape[:2]) >= 800
    blue, red = pixels[..., 2] - pixels[..., 0], pixels[..., 0] - pixels[..., 2]
    assert (blue > 80).sum() > 500
    assert ((red > 80).sum() > 200) == bool(networks)
