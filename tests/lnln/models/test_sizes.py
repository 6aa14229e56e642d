from __future__ import annotations

import dataclasses

import pytest

from lnln.config import ModelConfig, to_dict
from lnln.errors import RefusedError
from lnln.models.sizes import Sizes
from tests.lnln.models.random_inputs import SPEC


def test_sizes_are_the_papers() -> None:
    sizes = Sizes.from_config(ModelConfig(), SPEC, longest_text=512)
    assert (sizes.dim, sizes.num_tokens, sizes.fusion.depth) == (128, 8, 4)
    assert sizes.text.num_heads * sizes.text.head_dim == 512  # D19
    assert (sizes.hyper.depth, sizes.hyper.num_heads, sizes.hyper.head_dim) == (3, 8, 16)
    assert (sizes.completeness_hidden, sizes.discriminator_hidden) == (64, 64)
    assert sizes.proxy.num_tokens + sizes.proxy.max_length == 32  # D20


def test_lengths_come_from_the_corpus_unless_the_config_says() -> None:
    sizes = Sizes.from_config(ModelConfig(max_audio_length=5), SPEC, longest_text=512)
    lengths = (sizes.text.max_length, sizes.audio.max_length, sizes.vision.max_length)
    assert lengths == (SPEC.text_length, 5, SPEC.vision_length)


@pytest.mark.parametrize(
    ("in_config", "in_corpus", "longest", "expected"), [(0, 90, 64, 64), (80, 9, 64, 64), (0, 0, 64, 1)]
)
def test_text_is_at_least_one_step_and_at_most_what_the_encoder_takes(
    in_config: int, in_corpus: int, longest: int, expected: int
) -> None:
    spec = dataclasses.replace(SPEC, text_length=in_corpus)
    assert Sizes.from_config(ModelConfig(max_text_length=in_config), spec, longest).text.max_length == expected


def test_dict_and_back() -> None:
    sizes = Sizes.from_config(ModelConfig(), SPEC, longest_text=512)
    assert Sizes.from_dict(to_dict(sizes)) == sizes
    with pytest.raises(RefusedError, match=r"sizes\.wings"):
        Sizes.from_dict({"wings": 2})
