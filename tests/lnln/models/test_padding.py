from __future__ import annotations

import torch

from lnln.batches import map_inputs, tensors_of
from lnln.models.padding import GROUP_SIZE, by_length, can_ask, concatenate, fit, leave_out, steps
from tests.lnln.models.random_inputs import random_inputs

LENGTHS = [(5, 0, 3), (2, 4, 0), (0, 1, 1)]


def test_fit_cuts_and_trims_or_pads() -> None:
    inputs = random_inputs(LENGTHS, padded_to=(9, 9, 9))
    trimmed = fit(inputs, {"text": 4, "audio": 20, "vision": 2}, trim=True)
    assert [steps(trimmed, m)[0].shape[1] for m in ("text", "audio", "vision")] == [4, 4, 2]
    padded = fit(inputs, {"text": 4, "audio": 20, "vision": 2}, trim=False)
    assert [steps(padded, m)[1].shape[1] for m in ("text", "audio", "vision")] == [4, 20, 2]
    assert torch.equal(padded.audio[:, :9], inputs.audio) and not padded.audio_mask[:, 9:].any()
    nothing = fit(random_inputs([(0, 0, 0)]), {"text": 4, "audio": 20, "vision": 2}, trim=True)
    assert nothing.text.shape == (1, 1) and nothing.audio.shape == (1, 0, 3)


def test_where_to_ask_is_to_wait_lengths_are_those_of_the_batch() -> None:
    """On `meta` there is nothing to ask, as on a GPU there is nothing to ask without a wait."""
    there = random_inputs(LENGTHS, padded_to=(9, 9, 9))
    inputs = map_inputs(there, lambda x: x.to("meta"))
    assert can_ask(there.text) and not can_ask(inputs.text)
    fitted = fit(inputs, {"text": 4, "audio": 20, "vision": 2}, trim=True)
    assert [steps(fitted, m)[0].shape[1] for m in ("text", "audio", "vision")] == [4, 9, 2]
    calls: list[torch.Size] = []

    def read(mask: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor]:
        calls.append(x.shape)
        return (x.sum(dim=1),)

    many = torch.zeros(2 * GROUP_SIZE, 7, device="meta")
    assert by_length(read, many > 0, many)[0].shape == (2 * GROUP_SIZE,) and calls == [many.shape]


def test_what_is_left_out_has_no_steps_and_the_rest_is_untouched() -> None:
    inputs = random_inputs(LENGTHS)
    left = leave_out(inputs, ("audio",))
    assert left.text.shape == left.text_mask.shape == (3, 0) and left.vision.shape == (3, 0, 4)
    assert left.audio is inputs.audio and left.audio_mask is inputs.audio_mask
    everything = leave_out(inputs, ("text", "audio", "vision"))
    for name, value in tensors_of(inputs).items():
        assert getattr(everything, name) is value


def test_by_length_gives_every_row_its_own_result_without_padding() -> None:
    lengths = torch.arange(3 * GROUP_SIZE).flip(0) % 7
    mask = torch.arange(20) < lengths[:, None]
    x = torch.randn(len(lengths), 20, 2) * mask[:, :, None]
    seen: list[int] = []

    def read(mask: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(mask.shape[1])
        assert x.shape[:2] == y.shape == mask.shape
        return x.sum(dim=1), mask.sum(dim=1)

    sums, counts = by_length(read, mask, x, mask.float())
    torch.testing.assert_close(sums, x.sum(dim=1))
    assert torch.equal(counts, lengths) and len(seen) == 3 and max(seen) == 6 and min(seen) < 6


def test_concatenate_pads_to_the_longer() -> None:
    both = concatenate(random_inputs([(5, 0, 3)]), random_inputs([(2, 4, 0), (1, 1, 1)]))
    assert both.text.shape == (3, 5) and both.audio.shape == (3, 4, 3) and both.vision.shape == (3, 3, 4)
    assert both.text_mask.sum(dim=1).tolist() == [5, 2, 1]
