"""When an utterance's text counts as missing, so that a model reads simulated text in its place.

B utterances, T steps.
"""

from __future__ import annotations

from dataclasses import replace

from jaxtyping import Bool
from torch import Tensor

from lnln.batches import Inputs


def text_counts_as_missing(
    inputs: Inputs, share: float, unknown_id: int, ids_have_ends: bool = True
) -> Bool[Tensor, " B"]:
    """Whether at least `share` of an utterance's erasable steps of text is erased; True where it has none.

    inputs: not cut at a longest length, which would take a text's end away. An id is erased where it is `unknown_id`, a
    step of language features where it is zeros. ids_have_ends: the first and the last id, [CLS] and [SEP], are never
    erased and not counted; of language features every step counts.
    """
    text, mask = inputs.text, inputs.text_mask
    if text.dim() == 3:
        erasable, erased = mask, (text == 0).all(dim=-1)
    else:
        erasable, erased = mask, text == unknown_id
        if ids_have_ends:
            place = mask.cumsum(dim=1)
            erasable = mask & (place > 1) & (place < mask.sum(dim=1, keepdim=True))
    num_erasable = erasable.sum(dim=1)
    # In double precision 7 of 10 are the share 0.7 as it was written.
    gone = (erased & erasable).sum(dim=1).double() / num_erasable.clamp(min=1).double()
    return (num_erasable == 0) | (gone >= share)


def one_text(inputs: Inputs, is_missing: Bool[Tensor, " B"]) -> Inputs:
    """`inputs` with one text for each utterance: where its text `is_missing` that has no real step, and elsewhere the
    simulated text has none."""
    assert inputs.simulated_text_mask is not None, "simulated text comes with its mask"
    there = is_missing[:, None]
    return replace(
        inputs,
        text_mask=inputs.text_mask & ~there,
        simulated_text_mask=inputs.simulated_text_mask & there,
    )
