"""What is erased from an utterance, or disturbed: view specs, and the masks and noise they stand for. Pure NumPy.

A mask depends on (seed, draw, utterance_id, modality, position) and on nothing else. The generator, in full, so that
anyone can draw the same masks (64-bit unsigned arithmetic that wraps, hashes read as little-endian integers):

    hash(text)           blake2b(text in UTF-8, digest_size=8)
    mix(z)               SplitMix64's finaliser: z ^= z >> 30; z *= 0xBF58476D1CE4E5B9;
                                                 z ^= z >> 27; z *= 0x94D049BB133111EB; z ^= z >> 31
    key(purpose)         mix(hash(utterance_id) ^ hash(f"{purpose}/{seed}/{draw}/{modality}"))
                         for "frame", "block" and "modality", draw is `position_draw` where a view states one, and with
                         `shared_uniforms` vision's modality is "audio"
    output(key, n)       mix(key + (n + 1) * 0x9E3779B97F4A7C15): output n of SplitMix64 seeded with the key
    bits(purpose, n)     output(key(purpose), n)
    uniform(bits)        (bits >> 11) * 2**-53, within [0, 1)

For a training draw the rate r is itself drawn, for each utterance and modality: 0 if uniform(bits("rate", 0)) is below
`complete_share`, else (bits("rate", 1) >> 40) * 2**-24, a number that float32 holds exactly. What then happens at rate
r to the L steps of one modality, where T of them may be hit: all, but of token ids the first and the last, [CLS] and
[SEP], never are, so T = max(L - 2, 0).

    frame       Each step by itself, the paper's protocol: step p is erased where uniform(bits("frame", p)) < r.
    block       One stretch of n steps is erased. n = floor(r T), and one more where uniform(bits("block", 0)) is below
                r T - floor(r T), so that n is r T in the mean; it begins ((bits("block", 1) >> 32) (T - n + 1)) >> 32
                steps after the first that may be hit. (r T is one product of doubles, rounded once.)
    modality    All T steps are erased where uniform(bits("modality", 0)) < r, else none: r is the chance that the
                modality is absent. With rates of 0 and 1 a fixed subset is, the same for all utterances.
    noise       The steps that `frame` erases are disturbed instead, see `lnln.corruption.noise`.

An erased token becomes [UNK], any other erased step zeros; padding masks stay as they are. r = 0 leaves all as it is,
and r = 1 hits all T steps, exactly. Uniforms do not depend on the rate, so masks are nested: what is kept at 0.5 is
kept at 0.1, and curves over rates are paired. (Of `block`: n rises with r, and as n rises by one, T - n + 1 falls by
one; the start, that times a factor below one, falls by one or stays: the stretch grows at one of its ends.)

There is no rule that an utterance keeps one modality at least, as GCNet and its successors have. Under it a rate would
not be the chance of absence, rates of 1 could not state a subset, and masks of unequal rates would not be nested.

Ready-made language features (`keep_ends=False`) have no end that is kept: they are contextual, so that the feature of
[CLS] alone would tell what the erased words said. Even so, each step that is kept tells of its neighbours, which
erasing token ids in front of the encoder does not allow.

    masks = make_masks(ViewSpec.evaluation(0.5, seed=0), utterances.utterance_id, utterances.lengths())
"""

from lnln.corruption.masks import Lengths, Masks, make_many_masks, make_masks
from lnln.corruption.spec import (
    ViewSpec,
    evaluation_views,
    format_rate,
    rate_by_modality,
    training_view,
    training_views,
)

__all__ = [
    "Lengths",
    "Masks",
    "ViewSpec",
    "evaluation_views",
    "format_rate",
    "make_many_masks",
    "make_masks",
    "rate_by_modality",
    "training_view",
    "training_views",
]
