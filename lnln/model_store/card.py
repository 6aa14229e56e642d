"""The README.md of a published model: Hugging Face metadata on top, then what it is, how good it is, and its limits."""

from __future__ import annotations

from typing import Any

import yaml

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


def model_card(name: str, lineage: dict[str, Any], evaluation: Evaluation | None) -> str:
    """The card of the model `name`; `lineage` as in lineage.json, `evaluation` on test if there is one.

    Holds no version number: the same run gives the same bytes.
    """
    parts = [
        "---\n" + yaml.safe_dump(_metadata(name, lineage, evaluation), sort_keys=False, allow_unicode=True) + "---",
        f"# {escape(name)}",
        _summary(lineage),
    ]
    if lineage["synthetic"]:
        parts.append(SYNTHETIC)
    parts += ["## Use", _use(name, lineage), "## Results", _results(evaluation), "## Protocol", _protocol(lineage)]
    parts += ["## Limits", _limits(lineage), "## Origin", _origin(lineage)]
    return "\n\n".join(parts) + "\n"


def _metadata(name: str, lineage: dict[str, Any], evaluation: Evaluation | None) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "language": [lineage["language"]],
        "library_name": "lnln",
        "tags": [
            "model_hub_mixin",
            "pytorch_model_hub_mixin",
            "multimodal-sentiment-analysis",
            "missing-modality",
            lineage["config"]["model"]["name"],
            *(["synthetic"] if lineage["synthetic"] else []),
        ],
        "metrics": ["mae", "pearsonr", "accuracy", "f1"],
    }
    if evaluation is not None:
        results = [
            {"type": metric, "name": f"{TITLES[metric]} (mean over missing rates)", "value": round(value, 6)}
            for metric, value in ((metric, evaluation.mean[metric]) for metric in evaluation.metrics())
        ]
        dataset = {"type": lineage["corpus"], "name": lineage["corpus"], "split": evaluation.split}
        task = {"type": "text-classification", "name": "multimodal sentiment analysis with incomplete data"}
        metadata["model-index"] = [{"name": name, "results": [{"task": task, "dataset": dataset, "metrics": results}]}]
    return metadata


def _summary(lineage: dict[str, Any]) -> str:
    model = lineage["config"]["model"]
    reads = ["text"] if model["name"] == "text_only" else list(model["modalities"])
    read = " and ".join([", ".join(reads[:-1]), reads[-1]]) if len(reads) > 1 else reads[0]
    return (
        f"{code(model['name'])} ({model['mode']} mode, text encoder {code(model['text_encoder'])}): sentiment of an "
        f"utterance from {escape(read)}, any part of which may be missing. "
        f"Trained on the corpus {code(lineage['corpus'])}; the answer lies in "
        f"[{lineage['label_range'][0]:g}, {lineage['label_range'][1]:g}]."
    )


def _use(name: str, lineage: dict[str, Any]) -> str:
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


def _results(evaluation: Evaluation | None) -> str:
    if evaluation is None:
        return "Not evaluated on test when it was published."
    intervals = ", ".join(
        f"{TITLES[metric]} {format_score(metric, i.value)} ({format_interval(metric, (i.low, i.high))})"
        for metric, i in ((metric, evaluation.intervals.get(metric)) for metric in evaluation.metrics())
        if i is not None
    )
    return (
        f"{evaluation.num_labelled} labelled utterances of the {evaluation.split} split, all modalities at the same "
        f"missing rate; accuracies and F1 in percent. Baselines need no model.\n\n{table(evaluation.rows())}\n\n"
        f"Mean over rates with 95% bootstrap interval over utterances: {intervals}."
    )


def _protocol(lineage: dict[str, Any]) -> str:
    corruption = lineage["config"]["corruption"]
    rates = ", ".join(format_rate(rate) for rate in corruption["validation_rates"])
    return (
        f"Protocol {code(corruption['protocol'])}: {PROTOCOLS[corruption['protocol']]}. The checkpoint "
        f"was selected by the mean validation MAE over the rates {rates} ({lineage['selection']['value']:.4f}, "
        f"epoch {lineage['selection']['epoch']}); the test split took no part in it."
    )


def _limits(lineage: dict[str, Any]) -> str:
    extractors = [
        f"{modality} {code(str(made.get('name')))}" + (f" version {made['version']}" if "version" in made else "")
        for modality, made in lineage["extractors"].items()
    ]
    absent = " and ".join(lineage["absent_modalities"])
    without = f"- Trained without {escape(absent)}: no utterance of the training split has it.\n" if absent else ""
    return (
        f"{without}"
        "- Features must come from the extractors that the corpus was made with "
        f"({', '.join(extractors)}); those of other tools do not fit.\n"
        "- A sentence alone is an input without audio and vision.\n"
        "- One mask seed unless the table says otherwise; one training seed. Differences within the interval are no "
        "differences.\n"
        "- Not for decisions about people."
    )


def _origin(lineage: dict[str, Any]) -> str:
    rows = [
        {"what": what, "value": code(str(value))}
        for what, value in {
            "run": lineage["run_id"],
            "config fingerprint": lineage["config_fingerprint"],
            "corpus features": lineage["feature_id"],
            "feature manifest SHA-256": lineage["manifest_digest"],
            "seed": lineage["config"]["train"]["seed"],
            "code version": lineage["code_version"],
        }.items()
    ]
    return table(rows)
