"""The README.md of a published model: Hugging Face metadata on top, then what it is, how good it is, and its limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from lnln.config import Rate
from lnln.corruption import format_rate
from lnln.evaluations import Evaluation, format_interval, format_score
from lnln.markdown import code, escape, table
from lnln.metrics import TITLES

SYNTHETIC = (
    "**The corpus is synthetic**: a small grammar of sentiment phrases made by this project. "
    "The numbers show that the path works; they say nothing of real speech."
)

PROTOCOLS = {
    "frame": "each text position becomes [UNK], each audio or vision frame zeros, with the chance of the missing rate",
    "block": "one stretch of text positions becomes [UNK], one of audio or vision frames zeros: the missing rate is "
    "its share",
    "modality": "all text positions become [UNK], or all audio or vision frames zeros, with the chance of the missing "
    "rate",
    "noise": "each text position becomes another word as by a typing mistake, each audio or vision frame gets Gaussian "
    "noise, with the chance of the missing rate",
}


# Of our metric, the name by which Hugging Face knows its kind.
HUB_METRICS = {"mae": "mae", "corr": "pearsonr"}


def model_card(name: str, lineage: Mapping[str, Any], scores: Mapping[str, Evaluation]) -> str:
    """The card of the model `name`; `lineage` as in lineage.json, `scores` on test by corpus, its own first.

    Holds no version number: the same run gives the same bytes.
    """
    parts = [
        "---\n" + yaml.safe_dump(_metadata(name, lineage, scores), sort_keys=False, allow_unicode=True) + "---",
        f"# {escape(name)}",
        _summary(lineage),
    ]
    if lineage["synthetic"]:
        parts.append(SYNTHETIC)
    if lineage["imported"]:
        parts.append(_imported(lineage["imported"]))
    parts += ["## Use", _use(name, lineage), "## Results", *_results(lineage, scores), "## Protocol"]
    parts += [_protocol(lineage), "## Limits", _limits(lineage, scores), "## Origin", _origin(lineage)]
    return "\n\n".join(parts) + "\n"


def _metadata(name: str, lineage: Mapping[str, Any], scores: Mapping[str, Evaluation]) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "language": [lineage["language"]],
        "library_name": "lnln",
        "tags": [
            "model_hub_mixin",
            "pytorch_model_hub_mixin",
            "multimodal-sentiment-analysis",
            "missing-modality",
            lineage["model"]["name"],
            *(["synthetic"] if lineage["synthetic"] else []),
        ],
        "metrics": ["mae", "pearsonr", "accuracy", "f1"],
    }
    if scores:
        results = [_hub_result(evaluation) for evaluation in scores.values()]
        metadata["model-index"] = [{"name": name, "results": results}]
    return metadata


def _hub_result(evaluation: Evaluation) -> dict[str, Any]:
    """One entry of `model-index`: the corpus, and of every metric the mean over the missing rates with its interval."""
    metrics = []
    for metric in evaluation.metrics():
        interval = evaluation.intervals.get(metric)
        bounds = {} if interval is None else {"low": round(interval.low, 6), "high": round(interval.high, 6)}
        metrics.append(
            {
                "type": HUB_METRICS.get(metric, "accuracy" if metric.startswith("acc") else "f1"),
                "name": f"{TITLES[metric]} (mean over missing rates)",
                "value": round(evaluation.mean[metric], 6),
                "args": {
                    "missing_rates": ", ".join(format_rate(rate) for rate in evaluation.rates),
                    "mask_seeds": ", ".join(map(str, evaluation.mask_seeds)),
                    **({"interval_95": bounds} if bounds else {}),
                },
            }
        )
    return {
        "task": {"type": "text-classification", "name": "multimodal sentiment analysis with incomplete data"},
        "dataset": {"type": evaluation.corpus, "name": evaluation.corpus, "split": evaluation.split},
        "metrics": metrics,
    }


def _summary(lineage: Mapping[str, Any]) -> str:
    model = lineage["model"]
    reads = ["text"] if model["name"] == "text_only" else list(model["modalities"])
    read = " and ".join([", ".join(reads[:-1]), reads[-1]]) if len(reads) > 1 else reads[0]
    trained = "For features as those of the corpus" if lineage["run_id"] is None else "Trained on the corpus"
    return (
        f"{code(model['name'])} ({model['mode']} mode, text encoder {code(model['text_encoder'])}): sentiment of an "
        f"utterance from {escape(read)}, any part of which may be missing. "
        f"{trained} {code(lineage['corpus'])}; the answer lies in "
        f"[{lineage['label_range'][0]:g}, {lineage['label_range'][1]:g}]."
    )


def _imported(imported: Mapping[str, Any]) -> str:
    return (
        f"**Imported** from the {escape(imported['kind'])} {code(imported['name'])} "
        f"(SHA-256 {code(imported['sha256'])}). What that says of its training was taken as it stands; nothing here "
        "has seen it."
    )


def _use(name: str, lineage: Mapping[str, Any]) -> str:
    extraction = lineage.get("extraction")
    clip = f'lnln predict {name} clip.mp4 --transcript "what is said in it"\n' if extraction else ""
    usage = (
        f'```python\nimport lnln\nmodel = lnln.load("{name}@best", store="s3://bucket/prefix")\n```\n\n'
        f'```\nlnln pull {name}@best {name}\nlnln predict {name} "a sentence"\n{clip}```'
    )
    if not extraction:
        return usage
    config = yaml.safe_dump(extraction, sort_keys=False, allow_unicode=True)
    return (
        f"{usage}\n\n`lnln predict` extracts the features of a clip as those of the corpus were extracted. Of a whole "
        "folder of clips, `lnln extract DIR --corpus NAME --config extraction.yaml` makes features that the model "
        f"takes, with this as extraction.yaml:\n\n```yaml\n{config}```"
    )


def _results(lineage: Mapping[str, Any], scores: Mapping[str, Evaluation]) -> list[str]:
    if not scores:
        return ["Not evaluated on test when it was published."]
    parts = []
    for corpus, evaluation in scores.items():
        if len(scores) > 1 or corpus != lineage["corpus"]:
            parts.append(f"### On {code(corpus)}")
        parts.append(_scores(evaluation))
    return parts


def _scores(evaluation: Evaluation) -> str:
    intervals = ", ".join(
        f"{TITLES[metric]} {format_score(metric, i.value)} ({format_interval(metric, (i.low, i.high))})"
        for metric, i in ((metric, evaluation.intervals.get(metric)) for metric in evaluation.metrics())
        if i is not None
    )
    seeds = ", ".join(map(str, evaluation.mask_seeds))
    masks = f"means over the mask seeds {seeds}" if len(evaluation.mask_seeds) > 1 else f"mask seed {seeds}"
    elsewhere = "".join(f"\n- {escape(sentence)}" for sentence in evaluation.carries_over)
    return (
        f"{evaluation.num_labelled} labelled utterances of the {evaluation.split} split, protocol "
        f"{code(evaluation.protocol)}, all modalities at the same missing rate unless three are given; {masks}; "
        f"accuracies and F1 in percent. Baselines need no model.\n\n{table(evaluation.rows())}\n\n"
        f"Mean over rates with 95% bootstrap interval over utterances: {intervals}."
        + (f"\n\nNot the corpus that it was trained on:\n{elsewhere}" if elsewhere else "")
    )


def _protocol(lineage: Mapping[str, Any]) -> str:
    if lineage["config"] is None:
        return (
            "How it was trained and selected is not known here, so no validation score is stated, and it is not "
            "compared with versions that have one."
        )
    corruption = lineage["config"]["corruption"]
    rates = ", ".join(format_rate(_rate(rate)) for rate in corruption["validation_rates"])
    return (
        f"Protocol {code(corruption['protocol'])}: {PROTOCOLS[corruption['protocol']]}. The checkpoint "
        f"was selected by the mean validation MAE over the rates {rates} ({lineage['selection']['value']:.4f}, "
        f"epoch {lineage['selection']['epoch']}); the test split took no part in it."
    )


def _rate(value: Any) -> Rate:
    """Out of a config as JSON has it."""
    return tuple(value) if isinstance(value, list) else value


def _limits(lineage: Mapping[str, Any], scores: Mapping[str, Evaluation]) -> str:
    extractors = [
        f"{modality} {code(str(made.get('name')))}" + (f" version {made['version']}" if "version" in made else "")
        for modality, made in lineage["extractors"].items()
    ]
    points = []
    if absent := lineage["absent_modalities"]:
        points.append(f"Trained without {escape(' and '.join(absent))}: no utterance of the training split has it.")
    if scores and all(len(evaluation.mask_seeds) == 1 for evaluation in scores.values()):
        points.append("Scored under one draw of the masks; another draw gives other scores.")
    points += [
        f"Features must come from the extractors that the corpus was made with ({', '.join(extractors)}); those of "
        "other tools do not fit.",
        "A sentence alone is an input without audio and vision.",
        "One training with one seed. Another seed of the same config may differ by more than the interval, which is "
        "over utterances alone.",
        "Scores are of steps that are lost at random, in utterances that were whole; what is lost in the field is not "
        "lost at random.",
        f"The language is {'Chinese' if lineage['language'] == 'zh' else 'English'}; it was scored on no other.",
        "Not for decisions about people.",
    ]
    return "\n".join(f"- {point}" for point in points)


def _origin(lineage: Mapping[str, Any]) -> str:
    study, imported = lineage["study"] or {}, lineage["imported"] or {}
    trial = "configured parameters" if study and study["trial"] is None else study.get("trial")
    values = {
        "run": lineage["run_id"],
        "config fingerprint": lineage["config_fingerprint"],
        "study": study.get("study_id"),
        "trial": trial,
        "imported from": imported.get("name"),
        "its SHA-256": imported.get("sha256"),
        "corpus features": lineage["feature_id"],
        "feature manifest SHA-256": lineage["manifest_digest"],
        "validation views": ", ".join(lineage["view_ids"].get("validation", ())),
        "seed": lineage["seed"],
        "parameters": f"{lineage['num_parameters']:,}",
        "code version": lineage["code_version"],
    }
    return table(
        [{"what": what, "value": code(str(value))} for what, value in values.items() if value not in (None, "")]
    )
