"""Noise: known answers, the statement in plain numbers, and what it may depend on."""

from __future__ import annotations

import dataclasses
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnln.corruption import ViewSpec, make_masks
from lnln.corruption import noise as noise_module
from lnln.corruption.noise import Noise, NoiseSource, normals
from lnln.corruption.typos import Typos
from lnln.data.manifest import NO_TOKENIZER, Tokenizer
from lnln.data.schema import Modality, Ragged
from lnln.data.wordpiece import CHINESE
from lnln.errors import RefusedError
from tests.lnln.corruption.plain import IDS, LENGTHS, plain_normal, plain_typo
from tests.lnln.data.features import AUDIO_DIM, make_manifest

# Of the third utterance of IDS ("", 50 frames), position 7: made once by plain_normal.
KNOWN_NORMALS = [0.49928132439299866, -0.6718460018343484, 2.053652818843652]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "cat", "cut", "cart", "act", "at", "##s", "##t", "dog"]
SPEC = ViewSpec.evaluation(0.6, 0, "noise")


def make_source(dim: int, std: float = 1.0) -> NoiseSource:
    deviations: dict[Modality, np.ndarray] = {m: np.full(dim, std) for m in ("text", "audio", "vision")}
    return NoiseSource(deviations, Typos(VOCABULARY, unknown_id=1))


def frames(modality: Modality, dim: int, seed: int = 0) -> Ragged:
    lengths = LENGTHS[modality]
    values = np.random.default_rng(seed).normal(size=(sum(lengths), dim)).astype(np.float32)
    return Ragged.from_lengths(values, lengths)


def test_known_answers() -> None:
    assert [plain_normal(SPEC, "audio", "", 7, dim) for dim in range(3)] == pytest.approx(KNOWN_NORMALS, abs=1e-12)
    lengths = LENGTHS["audio"]
    kept = Ragged.from_lengths(np.zeros(sum(lengths), bool), lengths)
    zeros = Ragged.from_lengths(np.zeros((sum(lengths), 3), np.float32), lengths)
    value = make_source(3).draw(SPEC, "audio", IDS, zeros, kept).value[3 + 0 + 7]
    np.testing.assert_allclose(value, np.array(KNOWN_NORMALS, np.float32), rtol=1e-6)


@pytest.mark.parametrize("dim", [1, 2, 5, 74])
@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        ViewSpec.training(1111, 3, protocol="noise", position_draw=0, shared_uniforms=True),
        ViewSpec.evaluation((1.0, 1.0, 0.3), 5, "noise", noise_scale=0.5),
    ],
)
@pytest.mark.parametrize("modality", ["text", "audio", "vision"])
def test_frames_are_disturbed_as_stated(spec: ViewSpec, dim: int, modality: Modality) -> None:
    std = np.linspace(0, 3, dim)
    source = NoiseSource({modality: std}, None)
    before = frames(modality, dim)
    kept = make_masks(spec, IDS, LENGTHS, keep_ends=False).kept[modality]
    noise = source.draw(spec, modality, IDS, before, kept)
    hits = [(row, step) for row in range(len(IDS)) for step in range(len(kept[row])) if not kept[row][step]]
    assert list(zip(noise.row.tolist(), noise.step.tolist(), strict=True)) == hits
    assert noise.value.dtype == np.float32 and noise.value.shape == (len(hits), dim)
    for (row, step), value in zip(hits, noise.value, strict=True):
        added = [plain_normal(spec, modality, IDS[row], step, d) * spec.noise_scale * std[d] for d in range(dim)]
        expected = before[row][step] + np.array(added).astype(np.float32)
        np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-6)
    assert np.array_equal(before.values, frames(modality, dim).values)  # what came in is as it was


def test_words_are_mistyped_as_stated() -> None:
    ids = ["a", "b", "", "声音"]
    lengths = [12, 3, 0, 9]
    tokens = Ragged.from_lengths(np.random.default_rng(0).integers(0, 12, 24).astype(np.int32), lengths)
    for spec in (ViewSpec.evaluation(1.0, 0, "noise"), ViewSpec.training(3, 2, 0.0, "noise", position_draw=0)):
        masks = make_masks(spec, ids, {"text": lengths, "audio": [0] * 4, "vision": [0] * 4})
        source = make_source(1)
        assert source.typos is not None
        noise = source.draw(spec, "text", ids, tokens, masks.kept["text"])
        assert len(noise.row) and noise.value.dtype == np.int64
        for row, step, value in zip(noise.row, noise.step, noise.value, strict=True):
            options = source.typos.neighbours(int(tokens[row][step])).tolist()
            assert value == plain_typo(spec, ids[row], int(step), options, 1)


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=8),
    st.integers(1, 6),
    st.randoms(),
    st.integers(1, 50),
    st.integers(0, 3),
)
@settings(max_examples=60, deadline=None)
def test_values_do_not_depend_on_order_company_or_blocks(
    lengths: list[int], dim: int, random: object, block: int, seed: int
) -> None:
    ids = [f"u{i}" for i in range(len(lengths))]
    spec = ViewSpec.evaluation(0.7, seed, "noise")
    sequences = Ragged.from_lengths(np.zeros((sum(lengths), dim), np.float32), lengths)

    def drawn(rows: list[int]) -> dict[tuple[str, int], list[float]]:
        names = [ids[row] for row in rows]
        sizes = [lengths[row] for row in rows]
        kept = make_masks(spec, names, {"text": sizes, "audio": sizes, "vision": sizes}).kept["audio"]
        noise = make_source(dim).draw(spec, "audio", names, sequences.take(np.array(rows, np.int64)), kept)
        places = zip(noise.row.tolist(), noise.step.tolist(), strict=True)
        return {(names[row], step): v for (row, step), v in zip(places, noise.value.tolist(), strict=True)}

    whole = drawn(list(range(len(ids))))
    shuffled = sorted(range(len(ids)), key=lambda _: random.random())  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(noise_module, "_BLOCK", block)
        parts = [drawn(shuffled[first : first + 3]) for first in range(0, len(ids), 3)]
    assert {place: value for part in parts for place, value in part.items()} == whole


def test_normals_are_normal_and_independent() -> None:
    for dim in (1, 4, 7):
        made = normals(np.arange(100_000, dtype=np.uint64), dim)
        assert made.shape == (100_000, dim)
        error = 5 / np.sqrt(100_000)
        assert np.abs(made.mean(axis=0)).max() < error and np.abs(made.std(axis=0) - 1).max() < error
        # Kolmogorov and Smirnov, against the normal distribution.

        quantiles = np.array([NormalDist().inv_cdf((i + 0.5) / 1000) for i in range(1000)])
        for column in made.T:
            assert (
                np.abs((column[:, None] < quantiles[::50]).mean(axis=0) - (np.arange(20) * 50 + 0.5) / 1000).max()
                < 0.01
            )
        if dim > 1:
            assert np.abs(np.corrcoef(made.T) - np.eye(dim)).max() < error
            assert np.abs(np.corrcoef(made.T**2) - np.eye(dim)).max() < 2 * error
    assert normals(np.zeros(0, np.uint64), 5).shape == (0, 5)
    assert np.isfinite(normals(np.array([0, 2**64 - 1], np.uint64), 3)).all()


def test_values_differ_by_seed_draw_modality_utterance_and_position() -> None:
    kept = Ragged.from_lengths(np.zeros(400, bool), [200, 200])
    sequences = Ragged.from_lengths(np.zeros((400, 2), np.float32), [200, 200])
    specs = [ViewSpec(seed, draw, (1.0, 1.0, 1.0), "noise") for seed in (0, 1) for draw in (0, 1)]
    modalities: list[Modality] = ["audio", "vision"]
    made = [make_source(2).draw(s, m, ["a", "b"], sequences, kept).value for s in specs for m in modalities]
    rows = [part.ravel() for each in made for part in (each[:200], each[200:])]
    rows.append(np.roll(rows[0], 2))
    assert np.abs(np.corrcoef(np.stack(rows)) - np.eye(len(rows))).max() < 5 / np.sqrt(400)
    # With shared uniforms the same steps are hit, but not by the same values.
    shared = dataclasses.replace(specs[0], shared_uniforms=True)
    audio, vision = (make_source(2).draw(shared, m, ["a", "b"], sequences, kept).value for m in modalities)
    assert not np.array_equal(audio, vision) and np.array_equal(audio, made[0])


def test_nothing_is_hit() -> None:
    for sequences in (frames("audio", 3), Ragged.from_lengths(np.zeros(61, np.int32), LENGTHS["audio"])):
        kept = Ragged.from_lengths(np.ones(61, bool), LENGTHS["audio"])
        noise = make_source(3).draw(SPEC, "audio", IDS, sequences, kept)
        assert len(noise.row) == len(noise.step) == len(noise.value) == 0
    empty = Ragged.from_lengths(np.zeros((0, 3), np.float32), [0, 0])
    none = Ragged.from_lengths(np.zeros(0, bool), [0, 0])
    assert isinstance(make_source(3).draw(SPEC, "audio", ["a", "b"], empty, none), Noise)


def test_a_source_is_made_of_a_manifest() -> None:
    manifest = make_manifest()
    source = NoiseSource.of(manifest)
    assert source.deviations["audio"].tolist() == [1.0] * AUDIO_DIM and source.typos is not None
    features = dataclasses.replace(manifest, dims={"text": 4, **manifest.dims}, tokenizer=NO_TOKENIZER)
    assert NoiseSource.of(features).typos is None


@pytest.mark.parametrize("tokenizer", [CHINESE, dataclasses.replace(CHINESE, name=""), Tokenizer("x/y", 9, 0, 1, 2, 3)])
def test_a_vocabulary_that_is_not_at_hand_is_refused(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        RefusedError, match="is not at hand, and noise on token ids is drawn from it; run `hf "
    ) as caught:
        NoiseSource.of(dataclasses.replace(make_manifest(), tokenizer=tokenizer))
    assert "\n" not in str(caught.value)
