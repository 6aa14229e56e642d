from __future__ import annotations

from pipelines.extractors import choose
from tests.pipelines.extractors.vision.picture_clip import PictureClip, speaking


def test_every_clip_lacks_vision() -> None:
    chosen = choose("vision", "none")
    extractor = chosen.make()
    features = extractor.extract(PictureClip(speaking(2)))
    assert features.values.shape == (0, 1) and not features.counts
    assert chosen.record(extractor)["columns"] == ["absent"]
