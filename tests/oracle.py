"""Compare with numbers of the published implementation, case by case.

    python -m tests.oracle lnln DIR              # every *.safetensors of DIR that has a *.json beside it
    python -m tests.oracle sdumc DIR             # the same of SDUMC: both flows, losses, gradients
    python -m tests.oracle metrics FILE.json     # predictions, labels and the published metric code's results

One line per output, intermediate, loss and group of gradients: largest difference, tolerance, verdict. Exit code 0
when all are within, 1 when one is not, 2 for a wrong call, among which cases that do not say what is needed. Sizes are
read from the weights; numbers of heads, loss weights and the optimizer's rate from `args`. A case without weights of
its own uses those of a case with the same `args.model`: of several the one whose name has most in common with its own,
at beginning and end together (mosi_eval_b1 takes mosi_train's, not mosei_train's), and of equals train_b6; without
such a case, train_b6's.

Tolerances: 1e-5 absolute on outputs and losses; on intermediates 1e-5 of the largest number in them where that is above
1; 1e-4 relative, by norm, on each gradient. A gradient that is zero but for rounding (a key's bias cannot change a
softmax; here: under 1e-6 of the norm of all gradients together) has no relative error to speak of and is compared with
1e-3 of that norm instead.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lnln import metrics
from lnln.batches import Batch, Inputs
from lnln.config import LossConfig, from_dict
from lnln.data.schema import MODALITIES, Modality
from lnln.errors import RefusedError
from lnln.losses import loss_terms, total_loss
from lnln.models import published_sdumc
from lnln.models.lnln import LNLN
from lnln.models.output import Output
from lnln.models.published import WRAPPER, from_published, our_name
from lnln.models.sdumc import SDUMC

ABSOLUTE, RELATIVE = 1e-5, 1e-4

_LETTERS: dict[Modality, str] = {"text": "l", "audio": "a", "vision": "v"}
_LOSSES = {"l_cc": "completeness", "l_adv": "adversarial", "l_rec": "reconstruction", "l_sp": "sentiment"}
_LOSS_WEIGHTS = {"completeness": "alpha", "adversarial": "beta", "reconstruction": "gamma", "sentiment": "sigma"}
# Of SDUMC: the outputs of a flow and the loss terms, their names to ours.
_FLOW = {
    "prediction": "sentiment",
    "text_hidden": "text_hidden",
    "text_query": "text_query",
    "fused": "fused",
    "rnc_feature": "ranked",
}
_SDUMC_LOSSES = {
    "sentiment_full": "full_sentiment",
    "sentiment_missing": "missing_sentiment",
    "text_hidden": "text_hidden",
    "text_query": "text_query",
    "fused": "fused",
    "rnc": "rank_contrast",
}
_LABEL_RANGES = {"MOSI": (-3.0, 3.0), "MOSEI": (-3.0, 3.0), "SIMS": (-1.0, 1.0)}
_METRICS = {
    "Has0_acc_2": "acc2_nn",
    "Has0_F1_score": "f1_nn",
    "Non0_acc_2": "acc2_np",
    "Non0_F1_score": "f1_np",
    "Mult_acc_2": "acc2",
    "Mult_acc_3": "acc3",
    "Mult_acc_5": "acc5",
    "Mult_acc_7": "acc7",
    "F1_score": "f1",
    "MAE": "mae",
    "Corr": "corr",
}


class UsageError(Exception):
    """The call cannot be carried out as given."""


@dataclass(frozen=True)
class Check:
    """One compared thing; `difference` is NaN where there is nothing of ours to compare."""

    case: str
    name: str
    difference: float
    tolerance: float

    @property
    def holds(self) -> bool:
        return self.difference <= self.tolerance  # False for NaN

    def __str__(self) -> str:
        verdict = "ok" if self.holds else "DIFFERS"
        return f"{self.case:12} {self.name:58} {self.difference:10.2e}  (tolerance {self.tolerance:.0e})  {verdict}"


@dataclass(frozen=True)
class Case:
    """One case: its numbers without prefix, by prefix (`in`, `mid`, `out`, `grad`, `sd`), and its JSON."""

    name: str
    tensors: Mapping[str, Mapping[str, Tensor]]
    record: Mapping[str, Any]

    @property
    def is_training(self) -> bool:
        """It has numbers that need the complete input, or gradients."""
        outputs = {"effectiveness_discriminator_out", "rec_feats", "complete_feats"}
        return bool(self.record.get("losses") or self.tensors["grad"] or outputs & self.tensors["out"].keys())

    def option(self, section: str, key: str) -> Any:
        """A value of the published configuration; UsageError where the case does not state it."""
        try:
            return self.record["args"][section][key]
        except (KeyError, TypeError) as error:
            raise UsageError(f"{self.name}.json does not state args.{section}.{key}") from error


def read_cases(folder: Path) -> list[Case]:
    """The cases of `folder`, each with weights."""
    if not folder.is_dir():
        raise UsageError(f"no folder at {folder}")
    cases = []
    for path in sorted(folder.glob("*.safetensors")):
        record_path = path.with_suffix(".json")
        if not record_path.is_file():
            raise UsageError(f"{path.name} has no {record_path.name} beside it")
        try:
            record = json.loads(record_path.read_text())
            numbers = load_file(path)
        except (ValueError, SafetensorError) as error:
            raise UsageError(f"cannot read {path.stem}: {error}") from error
        tensors: dict[str, dict[str, Tensor]] = {prefix: {} for prefix in ("in", "mid", "out", "grad", "sd")}
        for name, tensor in numbers.items():
            prefix, _, rest = name.partition(".")
            tensors.setdefault(prefix, {})[rest] = tensor
        cases.append(Case(path.stem, tensors, record))
    if not cases:
        raise UsageError(f"no *.safetensors in {folder}")
    return [case if case.tensors["sd"] else _with_weights(case, cases) for case in cases]


def _with_weights(case: Case, cases: list[Case]) -> Case:
    """`case` with the weights of another: of those of the same network the one with the most similar name, of equals
    train_b6; else train_b6."""
    owners = [other for other in cases if other.tensors["sd"]]

    def rank(other: Case) -> tuple[bool, int, bool]:
        is_same = _same_network(case, other)
        return not is_same, -_num_common(case.name, other.name) if is_same else 0, other.name != "train_b6"

    owners.sort(key=rank)
    if not owners or not (_same_network(case, owners[0]) or owners[0].name == "train_b6"):
        raise UsageError(f"{case.name} has no weights (sd.), and no case with the same args.model has some")
    return Case(case.name, {**case.tensors, "sd": owners[0].tensors["sd"]}, case.record)


def _num_common(one: str, other: str) -> int:
    """Letters that two names have in common at their beginning and, of what is left, at their end."""

    def num_equal(left: str, right: str) -> int:
        is_equal = [a == b for a, b in zip(left, right, strict=False)]
        return [*is_equal, False].index(False)

    beginning = num_equal(one, other)
    return beginning + num_equal(one[beginning:][::-1], other[beginning:][::-1])


def _same_network(case: Case, other: Case) -> bool:
    mine, theirs = (each.record.get("args", {}).get("model") for each in (case, other))
    return mine is not None and mine == theirs


def check_lnln(case: Case) -> Iterator[Check]:
    """Everything one case has to say."""
    args = case.record.get("args", {})
    mode = args.get("base", {}).get("train_mode", "regression")
    if mode != "regression":
        raise UsageError(f"{case.name}.json has args.base.train_mode {mode!r}, expected regression")
    model = from_published(case.tensors["sd"], _with_encoder_heads(args))
    batch, segments = _batch(case)
    for modality, limit in model.limits.items():
        # The published model takes its input as it comes. Ours pads to the longest, which the published loader did.
        model.limits[modality] = min(limit, getattr(batch.corrupted, modality).shape[1])
    complete = batch.complete if case.is_training else None
    recorder = Recorder(model, segments)
    output = model(batch.corrupted, complete)

    for name, expected in sorted(case.tensors["out"].items()):
        yield _compare(case, f"out.{name}", _published_output(output, name), expected)
    ours = recorder.intermediates(len(batch.label))
    for name, expected in sorted(case.tensors["mid"].items()):
        yield _compare(case, f"mid.{name}", ours.get(name), expected, max(1.0, float(expected.abs().max())))
    if case.is_training:
        yield from _check_training(case, model, batch, output)


def _with_encoder_heads(args: Mapping[str, Any]) -> dict[str, Any]:
    """`args` with the number of heads of the oracle's text encoders, where it does not state another."""
    model = dict(args.get("model", {}))
    extractor = dict(model.get("feature_extractor", {}))
    name = str(extractor.get("bert_pretrained", ""))
    if "heads" not in name and "base" not in name:
        extractor["bert_pretrained"] = f"{name}, 4 heads"
    return {**args, "model": {**model, "feature_extractor": extractor}}


def _check_training(case: Case, model: LNLN, batch: Batch, output: Output) -> Iterator[Check]:
    weights = from_dict(LossConfig, {ours: case.option("base", theirs) for ours, theirs in _LOSS_WEIGHTS.items()})

    def losses(output: Output) -> dict[str, Tensor]:
        terms = loss_terms(output, batch, weights)
        total = total_loss(terms, batch.weight, weights, len(batch.label))
        return {"loss": total} | {theirs: terms[ours].mean() for theirs, ours in _LOSSES.items()}

    def compare(expected: Mapping[str, float], ours: Mapping[str, Tensor], name: str) -> Iterator[Check]:
        for key, value in expected.items():
            yield _compare(case, f"{name}.{key}", ours.get(key), torch.tensor(value))

    now = losses(output)
    yield from compare(case.record.get("losses", {}), now, "loss")
    now["loss"].backward()
    yield from _check_gradients(case, model, our_name, case.record.get("nograd", []))

    if case.record.get("losses_after_1_step"):
        rate, decay = case.option("base", "lr"), case.option("base", "weight_decay")
        torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay).step()
        after = losses(model(batch.corrupted, batch.complete))
        yield from compare(case.record["losses_after_1_step"], after, "loss after a step")


def check_sdumc(case: Case) -> Iterator[Check]:
    """Everything one case of SDUMC has to say."""
    unmoved = case.record.get("no_gradient")
    # Its weights are in every case, and only where it takes part have they a gradient.
    args = {} if unmoved is None else {"imagination": not any("imagination" in name for name in unmoved)}
    model = published_sdumc.from_published(case.tensors["sd"], args)
    batch = _sdumc_batch(case)
    output = model(batch.corrupted, batch.complete)
    for name, expected in sorted(case.tensors["out"].items()):
        flow, _, of_flow = name.partition(".")
        found = getattr(output, flow, None) if flow in ("full", "missing") else None
        mine = getattr(found, _FLOW[of_flow]) if found is not None and of_flow in _FLOW else None
        yield _compare(case, f"out.{name}", mine, expected)
    for name, expected in sorted(case.tensors["mid"].items()):
        yield _compare(case, f"mid.{name}", None, expected)
    if _has_losses(case):
        yield from _check_sdumc_losses(case, model, batch, output)


def _has_losses(case: Case) -> bool:
    return bool(case.record.get("losses") or "total" in case.record or case.tensors["grad"])


def _check_sdumc_losses(case: Case, model: SDUMC, batch: Batch, output: Output) -> Iterator[Check]:
    stated = case.record.get("weights", {})
    absent = [name for name in _SDUMC_LOSSES if name not in stated]
    if absent:
        raise UsageError(f"{case.name}.json does not state weights.{absent[0]}")
    weights = from_dict(LossConfig, {ours: stated[theirs] for theirs, ours in _SDUMC_LOSSES.items()})
    terms = loss_terms(output, batch, weights)
    total = total_loss(terms, batch.weight, weights, len(batch.label))
    means = {theirs: terms[ours].mean() for theirs, ours in _SDUMC_LOSSES.items()}
    for key, value in case.record.get("losses", {}).items():
        yield _compare(case, f"loss.{key}", means.get(key), torch.tensor(value))
    if "total" in case.record:
        yield _compare(case, "total", total, torch.tensor(case.record["total"]))
    total.backward()
    unmoved = [name for name in case.record.get("no_gradient", []) if published_sdumc.our_name(name)]
    yield from _check_gradients(case, model, published_sdumc.our_name, unmoved)


def _sdumc_batch(case: Case) -> Batch:
    numbers = {name: tensor.float() for name, tensor in case.tensors["in"].items()}
    needed = ["text", "text_simulated", "audio", "vision", *(["label"] if _has_losses(case) else [])]
    absent = [name for name in needed if name not in numbers]
    if absent:
        raise UsageError(f"{case.name} has no in.{absent[0]}")
    values: dict[str, Tensor] = {}
    streams: list[tuple[str, str]] = [(modality, modality) for modality in MODALITIES]
    for ours, theirs in [*streams, ("simulated_text", "text_simulated")]:
        values[ours] = numbers[theirs]
        values[f"{ours}_mask"] = torch.ones(numbers[theirs].shape[:2], dtype=torch.bool)
    inputs, num = Inputs(**values), len(numbers["audio"])
    return Batch(
        utterance_ids=[str(i) for i in range(num)],
        complete=inputs,
        corrupted=inputs,
        label=numbers.get("label", torch.full((num,), float("nan"))).reshape(-1),
        missing_rates=torch.zeros(num, 3),
        weight=torch.ones(num),
    )


def _check_gradients(
    case: Case, model: nn.Module, our_name: Callable[[str], str | None], without: Iterable[str]
) -> Iterator[Check]:
    """One check for each module of the published model: its largest relative difference; and one for the weights
    `without` a gradient, by their published names."""
    ours = {name: parameter.grad for name, parameter in model.named_parameters()}
    expected: dict[str, Tensor | float] = dict(case.record.get("gradnorm", {}))
    expected |= case.tensors["grad"]
    total = sum(float(torch.as_tensor(gradient).norm()) ** 2 for gradient in expected.values()) ** 0.5
    worst: dict[str, float] = {}
    for published, gradient in expected.items():
        mine = ours.pop(our_name(published) or "", None)
        if mine is None:
            relative = float("nan")
        elif isinstance(gradient, Tensor):
            relative = _relative(mine, gradient, total)
        else:
            relative = _relative(mine.norm(), torch.tensor(gradient), total)
        group = published.removeprefix(WRAPPER).split(".encoder.")[0].split(".layers.")[0]
        group = group.removesuffix(".weight").removesuffix(".bias")
        worst[group] = max(worst.get(group, 0.0), relative, key=lambda value: (value != value, value))
    for group, relative in worst.items():
        yield Check(case.name, f"grad.{group}", relative, RELATIVE)
    unmoved = {our_name(name) for name in without} - {None}
    strays = [name for name in ours if name in unmoved and ours[name] is not None]
    yield Check(case.name, "gradients that the published model has not", len(strays), 0)


def _relative(mine: Tensor, expected: Tensor, total: float) -> float:
    """Norm of the difference over the norm of what is expected; `total` is the norm of all gradients."""
    norm = float(expected.norm())
    return float((mine - expected.reshape(mine.shape)).norm()) / (norm if norm > 1e-6 * total else 1e-3 * total)


class Recorder:
    """Sees what passes between the parts of a model, under the published names of `mid.`."""

    def __init__(self, model: LNLN, segments: Tensor) -> None:
        self.model = model
        self.calls: dict[str, tuple[tuple[Any, ...], Tensor]] = {}
        assert model.text_encoder is not None, "published models read ids"
        model.reads_pairs_once = False  # the oracle has what passes for both rows of a pair
        # Shards hold no segments, the oracle's texts have two.
        model.text_encoder.register_forward_pre_hook(lambda _, args: (*args, segments[: len(args[0])]))
        parts: dict[str, Any] = {
            "bert": model.text_encoder,
            "completeness": model.completeness_encoder,
            "proxy": model.proxy_encoder,
            "fusion": model.fusion,
        }
        for modality in MODALITIES:
            parts[f"embed {modality}"] = model.get_submodule(f"embeddings.{modality}.transformer")
            parts[f"rebuild {modality}"] = model.reconstructors[modality]
        parts |= {f"hyper {i}": layer for i, layer in enumerate(model.hyper_layers)}
        parts |= {f"dominant {i}": layer for i, layer in enumerate(model.dominant_encoder.layers)}
        for name, part in parts.items():
            part.register_forward_hook(self._hook(name), with_kwargs=True)

    def _hook(self, name: str) -> Any:
        def record(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
            self.calls.setdefault(name, (args, out.detach()))

        return record

    @torch.no_grad()
    def intermediates(self, num_utterances: int) -> dict[str, Tensor]:
        """Of the first call; `_full` is every position of a last layer, of which the model computes what it reads."""
        model, calls = self.model, dict(self.calls)
        both = {"bert_out": calls["bert"][1]}
        found: dict[str, Tensor] = {}
        for modality, letter in _LETTERS.items():
            args, read = calls[f"embed {modality}"]
            embedding = model.get_submodule(f"embeddings.{modality}.transformer")
            both[f"proj_{letter}_full"] = embedding(args[0], args[1])
            both[f"h_1_{letter}"] = read
            if f"rebuild {modality}" in calls:
                found[f"rec_{letter}"] = calls[f"rebuild {modality}"][1]
        for name, value in both.items():
            found[name], found[f"{name}@1"] = value[:num_utterances], value[num_utterances:]
        found["cc_full"] = model.completeness_encoder(calls["completeness"][0][0])
        found["w"] = model.estimate_completeness(found["h_1_l"])
        found["proxy_full"] = model.proxy_encoder(calls["proxy"][0][0])
        found["h_1_p"] = calls["proxy"][1]
        weight = found["w"][:, None, None]
        found["h_1_d"] = (1 - weight) * found["h_1_p"] + weight * found["h_1_l"]
        found["h_d_list.0"] = calls["dominant 0"][0][0]
        for index in range(len(model.dominant_encoder.layers)):
            found[f"h_d_list.{index + 1}"] = calls[f"dominant {index}"][1]
        for index in range(len(model.hyper_layers)):
            if f"hyper {index}" in calls:
                found[f"hyper.{index}"] = found["h_hyper_out"] = calls[f"hyper {index}"][1]
        found["feat"] = calls["fusion"][1]
        return found


def _published_output(output: Output, name: str) -> Tensor | None:
    """`output` as the published model returns it."""
    if name == "effectiveness_discriminator_out" and output.discriminator_logits is not None:
        stand_in, language = output.discriminator_logits.chunk(2, dim=1)
        return torch.cat([stand_in.flatten(0, 1), language.flatten(0, 1)])
    feats = {"rec_feats": output.reconstructed, "complete_feats": output.reconstruction_target}.get(name)
    if feats is not None:
        text, audio, vision = feats.chunk(3, dim=1)
        return torch.cat([audio, vision, text], dim=1)
    return {"sentiment_preds": output.sentiment, "w": output.completeness}.get(name)


def _batch(case: Case) -> tuple[Batch, Tensor]:
    """The batch, and the segments of corrupted and complete texts, one after the other."""
    numbers = case.tensors["in"]

    absent = [name for name in ("text_m", "audio_m", "vision_m") if name not in numbers]
    needed = ["text", "audio", "vision", "label", "missing_rate_l"] if case.is_training else []
    absent += [name for name in needed if name not in numbers]
    if absent:
        raise UsageError(f"{case.name} has no in.{absent[0]}")

    def inputs(suffix: str) -> Inputs:
        text, audio, vision = (numbers.get(f"{m}{suffix}", numbers[f"{m}_m"]) for m in MODALITIES)
        everywhere = [torch.ones(x.shape[:2], dtype=torch.bool) for x in (audio, vision)]
        return Inputs(text[:, 0].long(), text[:, 1].bool(), audio.float(), everywhere[0], vision.float(), everywhere[1])

    complete, corrupted = inputs(""), inputs("_m")
    num = len(corrupted.text)
    nothing = torch.full((num,), float("nan"))
    rates = [numbers.get(f"missing_rate_{letter}", nothing).reshape(-1, 1) for letter in _LETTERS.values()]
    batch = Batch(
        utterance_ids=[str(i) for i in range(num)],
        complete=complete,
        corrupted=corrupted,
        label=numbers.get("label", nothing).reshape(-1).float(),
        missing_rates=torch.cat(rates, dim=1).float(),
        weight=torch.ones(num),
    )
    texts = [numbers["text_m"], numbers.get("text", numbers["text_m"])]
    return batch, torch.cat([text[:, 2] for text in texts]).long()


def _compare(case: Case, name: str, mine: Tensor | None, expected: Tensor, scale: float = 1.0) -> Check:
    difference = float("nan")
    # The published model drops the axis of a batch of one in places (D23), so shapes are compared without it.
    if mine is not None and mine.numel() == expected.numel():
        difference = float((mine.detach().reshape(-1) - expected.reshape(-1)).abs().max())
    return Check(case.name, name, difference, ABSOLUTE * scale)


def check_metrics(path: Path) -> Iterator[Check]:
    """Each result of each case; the published code's errors and NaN are finite numbers of ours."""
    try:
        cases = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    for case in cases:
        name = f"{case['dataset']} {case['case']}"
        scores = metrics.score(case["preds"], case["labels"], _LABEL_RANGES[case["dataset"]])
        if "error" in case:
            is_finite = all(abs(value) < float("inf") for value in scores.values())
            yield Check(name, "an error there, finite here", 0.0 if is_finite else float("nan"), 0.0)
        for key, value in case.get("result", {}).items():
            mine = scores.get(_METRICS[key], float("nan"))
            if case["dataset"] != "SIMS":
                mine = round(mine, 4)
            expected = 0.0 if value == "nan" else float(value)
            yield Check(name, f"{key} ({_METRICS[key]})", abs(mine - expected), 1e-6)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.oracle", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="lnln|sdumc|metrics")
    for name in ("lnln", "sdumc"):
        commands.add_parser(name, help="the model, its losses and gradients").add_argument("folder", type=Path)
    commands.add_parser("metrics", help="the metrics").add_argument("file", type=Path)
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "metrics":
            checks = _print_all(check_metrics(chosen.file))
        else:
            check_case = check_lnln if chosen.command == "lnln" else check_sdumc
            checks = _print_all(check for case in read_cases(chosen.folder) for check in check_case(case))
    except (UsageError, RefusedError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    failed = [check for check in checks if not check.holds]
    if failed:
        print(f"DIFFERS: {len(failed)} of {len(checks)} are outside the tolerance")
        return 1
    print(f"EQUAL: all {len(checks)} are within the tolerance")
    return 0


def _print_all(checks: Iterator[Check]) -> list[Check]:
    done = []
    for check in checks:
        print(check)
        done.append(check)
    return done


if __name__ == "__main__":
    sys.exit(main())
