"""What a method needs: the same training with one part left out at a time, each compared with the whole.

    found = ablate(store, "mosi", load_config("mosi"), [1111, 1112, 1113])
    found.settings["no_correction"].differences["mae"].word

Every training is a run under its own id, so the same call continues, and what is finished costs nothing. The list is
`ABLATIONS`, and of SDUMC `SDUMC_ABLATIONS`; benchmarks/results.yaml names the same entries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from lnln.config import Config, assign
from lnln.data.manifest import FeatureManifest, read_features
from lnln.data.model_inputs import with_simulation_in_use
from lnln.data.schema import SPLITS
from lnln.data.shards import shard_entries
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.evaluate.comparison import HIGH_RATES, compare_scores
from lnln.evaluate.estimates import SuiteScores, score_suite
from lnln.evaluate.paired import Difference
from lnln.evaluate.systems import score_systems
from lnln.progress import line
from lnln.runs import Run, trained_values
from lnln.train.seeds import SeedsFailedError, train_seeds

SUITE = "ten_rates"
BASE = "base"

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Ablation:
    """title: what tables call it. changes: of the config, as `--set` takes them. source: where the paper has it."""

    title: str
    changes: tuple[str, ...]
    source: str


ABLATIONS: dict[str, Ablation] = {
    "no_correction": Ablation(
        "without dominant modality correction (DMC)", ("model.correction=false",), "Table 4, w/o DMC"
    ),
    "no_reconstruction": Ablation(
        "without the reconstructor", ("model.reconstruction=false",), "Table 4, w/o Reconstructor"
    ),
    "no_dominant_fusion": Ablation(
        "without dominant modality based learning (DMML)", ("model.fusion=concat",), "Table 4, w/o DMML"
    ),
    "no_audio": Ablation("without audio", ("model.modalities=[text, vision]",), "Table 6"),
    "no_adversarial": Ablation("without the adversarial term", ("loss.adversarial=0",), "Tables 5 and 7, w/o L_adv"),
    "no_completeness": Ablation("without the completeness term", ("loss.completeness=0",), "Tables 5 and 7, w/o L_cc"),
    "no_missing_data": Ablation(
        "without missing data in training", ("corruption.complete_share=1",), "Table 4, w/o missing data"
    ),
    "no_reconstruction_term": Ablation(
        "without the reconstruction term", ("loss.reconstruction=0",), "Tables 5 and 7, w/o L_rec"
    ),
    "no_correction_no_reconstruction": Ablation(
        "without DMC and the reconstructor",
        ("model.correction=false", "model.reconstruction=false"),
        "Table 4, w/o DMC & Reconstructor",
    ),
    "no_vision": Ablation("without vision", ("model.modalities=[text, audio]",), "Table 6"),
    "no_text": Ablation("without text", ("model.modalities=[audio, vision]",), "Table 6"),
}

# Of SDUMC: its parts, and of the above what is no part of a network.
_SDUMC = "arXiv 2410.15029"
SDUMC_ABLATIONS: dict[str, Ablation] = {
    "no_missing_flow": Ablation(
        "without the missing flow",
        ("loss.missing_sentiment=0", "loss.text_hidden=0", "loss.text_query=0", "loss.fused=0"),
        _SDUMC,
    ),
    "no_imagination": Ablation(
        "without the modality imagination autoencoder (MIA)", ("model.sdumc.imagination=false",), _SDUMC
    ),
    "no_rank_contrast": Ablation("without Rank-N-Contrast", ("loss.rank_contrast=0",), _SDUMC),
    **{name: ABLATIONS[name] for name in ("no_missing_data", "no_audio", "no_vision", "no_text")},
}


def ablations_of(model: str) -> dict[str, Ablation]:
    """The list of the network called so."""
    return SDUMC_ABLATIONS if model == "sdumc" else ABLATIONS


@dataclass(frozen=True)
class Setting:
    """The base, or one ablation of it. runs: by seed. failed: why, by seed of which there is none.

    scores: of the runs on the suite's views, None where there is none. differences: to the base over the ten rates, by
    metric, high: over HIGH_RATES alone; empty for the base, and where one side has no run.
    """

    title: str
    source: str
    runs: Mapping[int, Run]
    failed: Mapping[int, str]
    scores: SuiteScores | None = None
    differences: Mapping[str, Difference] | None = None
    high: Mapping[str, Difference] | None = None


@dataclass(frozen=True)
class Ablations:
    """settings: by name, BASE first. left_out: ablations that change nothing of this base or corpus, and why."""

    corpus: str
    split: str
    settings: Mapping[str, Setting]
    left_out: Mapping[str, str]

    @property
    def base(self) -> Setting:
        return self.settings[BASE]

    @property
    def failed(self) -> dict[str, Mapping[int, str]]:
        """By setting, where some seeds failed."""
        return {name: setting.failed for name, setting in self.settings.items() if setting.failed}


def ablated(config: Config, ablation: Ablation) -> Config:
    """`config` without what `ablation` names."""
    values = config.to_dict()
    for change in ablation.changes:
        assign(values, change, example="loss.adversarial=0")
    return Config.from_dict(values)


def choose_ablations(
    config: Config, manifest: FeatureManifest, only: Sequence[str] | None = None
) -> tuple[dict[str, Config], dict[str, str]]:
    """The configs of the ablations that change something, by name and in the order of the list; and why others do not.

    only: some of them. RefusedError for an unknown name, and for one of `only` that changes nothing.
    """
    known = ablations_of(config.model.name)
    for name in only or ():
        if name not in known:
            raise RefusedError(f"an ablation of {config.model.name} is one of {', '.join(known)}, got {name!r}")
    if only is not None and not only:
        raise RefusedError(f"expected one ablation or more of {', '.join(known)}, got none")
    chosen: dict[str, Config] = {}
    left_out: dict[str, str] = {}
    for name, ablation in known.items():
        if only is not None and name not in only:
            continue
        reason = _why_not(config, manifest, name, ablation) or _same_as(config, ablation, chosen)
        if not reason:
            chosen[name] = ablated(config, ablation)
        elif only is not None:
            raise RefusedError(f"ablation {name} makes no sense here: {reason}; leave it out of --only")
        else:
            left_out[name] = reason
    return chosen, left_out


def ablate(
    store: Store,
    corpus: str,
    config: Config,
    seeds: Sequence[int],
    *,
    only: Sequence[str] | None = None,
    split: str = "test",
    num_workers: int | tuple[int, int] = 1,
    gpus_per_worker: float = 1.0,
    num_parallel: int | None = None,
    config_name: str | None = None,
    progress: Progress | None = line,
) -> Ablations:
    """Train `config` and each ablation of it with each of `seeds`, score all at ten missing rates, compare with the
    base.

    only: names of the model's list, default all that change something. The others: as of `train_seeds`, for one setting
    after the other; a seed that fails stops nothing and stands in the result. Differences are paired over seeds and
    utterances; of a single seed the chance of training is taken from settings that have several, or not allowed for.
    RefusedError at once for what none could be trained with, and for a split that could not be scored.
    """
    chosen_split = next((known for known in SPLITS if known == split), None)
    if chosen_split is None:
        raise RefusedError(f"a split is one of {', '.join(SPLITS)}, got {split!r}")
    manifest = read_features(store, corpus)
    shard_entries(manifest, chosen_split)  # refuses one that the corpus has not
    config = with_simulation_in_use(store, manifest, config)
    chosen, left_out = choose_ablations(config, manifest, only)
    settings: dict[str, Setting] = {}
    for name, each in {BASE: config, **chosen}.items():
        ablation = ablations_of(config.model.name).get(name, Ablation("base", (), ""))

        def say(text: str, title: str = ablation.title) -> None:
            assert progress is not None
            progress(f"{title}: {text}")

        runs: Mapping[int, Run]
        failed: Mapping[int, str] = {}
        try:
            made = train_seeds(
                store,
                corpus,
                each,
                seeds,
                num_workers=num_workers,
                gpus_per_worker=gpus_per_worker,
                num_parallel=num_parallel,
                config_name=config_name,
                progress=None if progress is None else say,
            )
            runs = dict(zip(seeds, made, strict=True))
        except SeedsFailedError as failure:
            runs, failed = failure.runs, failure.reasons
        settings[name] = Setting(ablation.title, ablation.source, runs, failed)
    return Ablations(corpus, split, _compared(store, settings, split), left_out)


def _why_not(config: Config, manifest: FeatureManifest, name: str, ablation: Ablation) -> str:
    """Why the ablation would train what the base does, or nothing at all; "" where it would not."""
    try:
        changed = ablated(config, ablation)
    except RefusedError as error:
        return str(error)
    if trained_values(changed) == trained_values(config):
        return f"{' and '.join(ablation.changes)} is what the base has"
    model, absent = config.model, manifest.absent_modalities()
    gone = [modality for modality in model.modalities if modality not in changed.model.modalities]
    if name in ("no_text", "no_audio", "no_vision"):
        if model.name == "text_only":
            return "model text_only reads text alone"
        if set(model.modalities) != set(changed.model.modalities) | set(gone):
            return f"the base has model.modalities {', '.join(model.modalities)}"
        if set(gone) <= set(absent):
            return f"no training utterance of {manifest.corpus} has {' or '.join(gone)}"
        if set(changed.model.modalities) <= set(absent):
            return f"no training utterance of {manifest.corpus} has anything else"
    elif name != "no_missing_data" and model.name not in ("lnln", "sdumc"):
        return f"model {model.name} has no such part"
    elif name == "no_reconstruction_term" and not model.reconstruction:
        return "the base has no reconstructor"
    elif name in ("no_adversarial", "no_completeness") and not model.correction:
        return "the base has no dominant modality correction"
    return ""


def _same_as(config: Config, ablation: Ablation, chosen: Mapping[str, Config]) -> str:
    """Which of `chosen` trains the same, in words; "" where none does."""
    changed = trained_values(ablated(config, ablation))
    same = next((name for name, other in chosen.items() if trained_values(other) == changed), None)
    return "" if same is None else f"it is what {same} trains"


def _compared(store: Store, settings: Mapping[str, Setting], split: str) -> dict[str, Setting]:
    """The same settings with their scores and the differences to the base."""
    names = [f"{setting.title}={run.run_id}" for setting in settings.values() for run in setting.runs.values()]
    systems = {system.title: system for system in score_systems(store, names, [SUITE], split=split)} if names else {}
    scores = {name: score_suite(store, systems[each.title], SUITE) for name, each in settings.items() if each.runs}
    base = scores.get(BASE)
    differences = compare_scores([*scores.values()], base) if base is not None else {}
    high = compare_scores([*scores.values()], base, HIGH_RATES) if base is not None else {}
    return {
        name: replace(
            setting, scores=scores.get(name), differences=differences.get(setting.title), high=high.get(setting.title)
        )
        for name, setting in settings.items()
    }
