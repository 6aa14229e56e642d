"""LNLN with simulated text in place of a text that is missing."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from lnln.batches import Batch, Inputs, corrupt_inputs
from lnln.config import LossConfig, to_dict
from lnln.data.schema import MODALITIES, FeatureSpec
from lnln.errors import RefusedError
from lnln.losses import loss_terms, total_loss
from lnln.models import LNLN, load_model
from lnln.models.missing_text import text_counts_as_missing
from lnln.models.padding import GROUP_SIZE
from tests.lnln.models.random_inputs import (
    FEATURE_SPEC,
    SPEC,
    erase_all,
    random_inputs,
    rows,
    small_config,
    small_model,
)

LENGTHS = [(12, 10, 9), (4, 0, 9), (7, 3, 0), (2, 6, 4), (0, 5, 2), (9, 9, 1)]
MANY = [LENGTHS[i % len(LENGTHS)] for i in range(GROUP_SIZE + 4)]
SIMULATED_LENGTH = 15  # more than the text's


def with_simulation(spec: FeatureSpec) -> FeatureSpec:
    return dataclasses.replace(spec, simulated_text_dim=spec.text_dim or 16, simulated_text_length=SIMULATED_LENGTH)


SPECS = pytest.mark.parametrize("spec", [with_simulation(SPEC), with_simulation(FEATURE_SPEC)], ids=["ids", "features"])


def simulated_model(spec: FeatureSpec, **changes: Any) -> LNLN:
    return small_model(spec, simulated_text="when_missing", **changes)


def simulated_inputs(lengths: list[tuple[int, int, int]], spec: FeatureSpec) -> Inputs:
    """Utterance i has as much simulated text as there is audio, half as much again, and none without audio."""
    inputs = random_inputs(lengths, spec)
    generator = torch.Generator().manual_seed(7)
    num = torch.tensor([audio + audio // 2 for _, audio, _ in lengths])
    mask = torch.arange(int(num.max())) < num[:, None]
    values = torch.randn(*mask.shape, spec.simulated_text_dim, generator=generator)
    return dataclasses.replace(inputs, simulated_text=values * mask[:, :, None], simulated_text_mask=mask)


def simulation_of(inputs: Inputs) -> Tensor:
    assert inputs.simulated_text is not None
    return inputs.simulated_text


def mixed(spec: FeatureSpec, lengths: list[tuple[int, int, int]] = LENGTHS) -> tuple[Inputs, Inputs]:
    """(corrupted, complete): of every second utterance all text is erased, of every third some audio."""
    complete = simulated_inputs(lengths, spec)
    kept = {m: torch.ones_like(getattr(complete, f"{m}_mask")) for m in MODALITIES}
    kept["audio"][::3, ::2] = False
    corrupted = corrupt_inputs(complete, kept, spec.unknown_id)
    gone = erase_all(complete, spec).text
    even = (torch.arange(len(lengths)) % 2 == 0).reshape(-1, *[1] * (gone.dim() - 1))
    return dataclasses.replace(corrupted, text=torch.where(even, gone, corrupted.text)), complete


@SPECS
def test_a_text_that_is_there_is_read_as_without_simulated_text(spec: FeatureSpec) -> None:
    complete = simulated_inputs([each for each in LENGTHS if each[0] > 2], spec)
    model = simulated_model(spec).eval()
    other = dataclasses.replace(complete, simulated_text=torch.full_like(simulation_of(complete), 3.0))
    torch.testing.assert_close(model(complete).sentiment, model(other).sentiment, rtol=0, atol=0)


@SPECS
def test_of_a_missing_text_the_simulated_one_decides(spec: FeatureSpec) -> None:
    corrupted, _ = mixed(spec)
    missing = text_counts_as_missing(corrupted, 1.0, spec.unknown_id)
    assert missing.any() and not missing.all()
    model = simulated_model(spec).eval()
    said = model(corrupted).sentiment
    changed = dataclasses.replace(corrupted, simulated_text=simulation_of(corrupted) * 2)
    has_steps = simulation_of(corrupted).ne(0).any(dim=-1).any(dim=1)
    assert ((model(changed).sentiment - said).abs() > 1e-7).tolist() == (missing & has_steps).tolist()
    # Nor does what is left of it, as [CLS] and [SEP].
    if not spec.text_dim:
        ends = dataclasses.replace(corrupted, text=torch.where(missing[:, None], 7, corrupted.text))
        ends = dataclasses.replace(ends, text_mask=corrupted.text_mask & ~missing[:, None])
        torch.testing.assert_close(model(ends).sentiment, said, rtol=1e-5, atol=1e-6)


@SPECS
def test_a_row_does_not_hang_on_its_batch(spec: FeatureSpec) -> None:
    corrupted, _ = mixed(spec, MANY)
    model = simulated_model(spec).eval()
    together = model(corrupted).sentiment
    alone = torch.cat([model(rows(corrupted, [i])).sentiment for i in range(len(MANY))])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def trained(model: LNLN, corrupted: Inputs, complete: Inputs) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    num = len(corrupted.text)
    batch = Batch([""] * num, complete, corrupted, torch.linspace(-1, 1, num), torch.rand(num, 3), torch.ones(num))
    torch.manual_seed(3)
    batch = dataclasses.replace(batch, missing_rates=torch.rand(num, 3))
    model.zero_grad()
    output = model(corrupted, complete)
    terms = loss_terms(output, batch, LossConfig())
    total_loss(terms, batch.weight, LossConfig(), num).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return output.sentiment.detach(), {name: term.detach() for name, term in terms.items()}, gradients


@SPECS
@pytest.mark.parametrize(
    "changes", [{}, {"detach_targets": False}, {"mask_erased": False}, {"fusion": "concat"}], ids=str
)
def test_where_nobody_may_ask_the_result_is_the_same(
    spec: FeatureSpec, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: both texts are read, and each utterance's own is taken."""
    model, inputs = simulated_model(spec, **changes), mixed(spec, MANY)
    said, terms, gradients = trained(model, *inputs)
    assert set(terms) == {"completeness", "adversarial", "reconstruction", "sentiment"}
    for module in ("lnln", "padding"):
        monkeypatch.setattr(f"lnln.models.{module}.can_ask", lambda _: False)
    other_said, other_terms, other_gradients = trained(model, *inputs)
    torch.testing.assert_close(other_said, said, rtol=1e-4, atol=1e-5)
    for name, term in terms.items():
        torch.testing.assert_close(other_terms[name], term, rtol=1e-4, atol=1e-5, msg=name)
    for name, gradient in gradients.items():
        torch.testing.assert_close(other_gradients[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


@SPECS
@pytest.mark.parametrize("erased", [True, False])
def test_all_texts_or_none(spec: FeatureSpec, erased: bool) -> None:
    complete = simulated_inputs([(5, 4, 3)] * 3, spec)
    corrupted = erase_all(complete, spec) if erased else complete
    _, _, gradients = trained(simulated_model(spec), corrupted, complete)
    assert all(gradient.isfinite().all() for gradient in gradients.values())


@SPECS
def test_without_a_modality(spec: FeatureSpec) -> None:
    corrupted, complete = mixed(spec)
    for modalities in (("text",), ("audio", "vision"), ("vision",)):
        model = simulated_model(spec, modalities=modalities)
        said, _, _ = trained(model, corrupted, complete)
        assert said.isfinite().all()


def test_it_is_saved_and_loaded(tmp_path: Any) -> None:
    spec = with_simulation(SPEC)
    model, (corrupted, _) = simulated_model(spec).eval(), mixed(spec)
    model.save_pretrained(tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert isinstance(loaded, LNLN)
    torch.testing.assert_close(loaded(corrupted).sentiment, model(corrupted).sentiment)
    assert loaded.limits["simulated_text"] == SIMULATED_LENGTH and loaded.limits["text"] == spec.text_length


@pytest.mark.parametrize(
    ("changes", "spec", "said"),
    [
        ({}, SPEC, "width 16, got none"),
        ({}, dataclasses.replace(SPEC, simulated_text_dim=5, simulated_text_length=3), "width 16, got width 5"),
        ({"mode": "reference"}, with_simulation(SPEC), "mask_padding=false"),
        ({"reconstruct": "features"}, with_simulation(SPEC), "reconstruct=features"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], spec: FeatureSpec, said: str) -> None:
    with pytest.raises(RefusedError, match=said):
        simulated_model(spec, **changes)


def test_a_model_that_does_not_read_it_is_not_changed_by_it() -> None:
    spec = with_simulation(SPEC)
    corrupted, _ = mixed(spec)
    plain, there = small_model(SPEC).eval(), small_model(spec).eval()
    assert to_dict(small_config())["simulated_text"] == "none"
    torch.testing.assert_close(plain(corrupted).sentiment, there(corrupted).sentiment, rtol=0, atol=0)
