"""Systems: trainings that differ in nothing but their seed, each scored on the same views.

    systems = score_systems(store, ["mosi-lnln-1f3a0c9d2b44", "mosi-lnln-8bdd51dc4b8b", "mosi-text_only-09fb7b0ce538"])
    systems[0].title, systems[0].seeds                  # ("LNLN", (1111, 1112))

What is said of a method is said of a system, since seeds differ by as much as many methods do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lnln.config import Config
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.evaluate.predictions import Predictions, read_predictions
from lnln.evaluate.run import Evaluator
from lnln.evaluations import Evaluation
from lnln.model_store.opened import OpenedModel
from lnln.runs import trained_values

# Of `model.name`.
NETWORK_TITLES = {"lnln": "LNLN", "sdumc": "SDUMC", "text_only": "text only", "late_fusion": "late fusion"}


@dataclass(frozen=True)
class System:
    """One configuration on one split. title: what tables call it, different from those beside it.

    names: of its trainings, in the order of `seeds`; seeds: None for a model that does not say. evaluations: by suite
    (lnln/evaluate/suites.py), one for each training. config: of all of them but for the seed, where it is known.
    """

    title: str
    names: tuple[str, ...]
    seeds: tuple[int | None, ...]
    evaluations: Mapping[str, tuple[Evaluation, ...]]
    config: Config | None

    @property
    def first(self) -> Evaluation:
        """Any of the evaluations, for what is the same in all: corpus, split, labels, note."""
        return next(iter(self.evaluations.values()))[0]

    def predictions(self, store: Store, suite: str, metric: str = "mae") -> list[Predictions]:
        """Of each training under the views of `suite`, labelled utterances alone (`read_predictions`)."""
        return [read_predictions(store, each, metric).labelled() for each in self.evaluations[suite]]


def score_systems(
    store: Store,
    names: Sequence[str],
    suites: Sequence[str] = ("ten_rates", "absent"),
    corpus: str | None = None,
    *,
    split: str = "test",
    mask_seeds: Sequence[int] | None = None,
) -> list[System]:
    """The models `names` (runs, published models, folders) as systems, in the order of their first names.

    A name may be given as `TITLE=NAME`; equal titles must be trainings that differ in their seed alone. Others are
    grouped and titled by what they differ in. A run with `train.selection: published` is a second system with the
    weights that were selected on test, whose evaluations say so. What was not scored before is scored now, from one
    load of the corpus. Raises RefusedError as `evaluate_suites`, and for titles that contradict the configs.
    """
    evaluator = Evaluator(store)
    found: dict[tuple[str, str], _Found] = {}
    for given in dict.fromkeys(names):
        title, _, name = given.rpartition("=")
        for selection in ("validation", "published"):
            subject = evaluator.open(name, corpus, split=split)
            config, opened = subject.opened.config, subject.opened
            if selection == "published":
                # Only the run itself keeps weights that were selected on test, not what was published of it.
                keeps = config is not None and config.train.selection == "published"
                if not keeps or opened.run_id != opened.reference:
                    continue
                subject = evaluator.open(name, corpus, split=split, selection=selection)
            evaluations = subject.score_suites(suites, mask_seeds)
            key = _key(opened, evaluations), selection
            entry = found.setdefault(key, _Found(title, config, selection))
            if entry.title != title:
                raise RefusedError(
                    f"{name} is called {title or 'nothing'!r}, but {entry.names[0]}, which differs from it in its seed "
                    f"alone, is called {entry.title or 'nothing'!r}; give both the same title"
                )
            entry.add(opened.reference, None if config is None else config.train.seed, evaluations)
    return _titled(list(found.values()))


class _Found:
    """A system while its trainings are met."""

    def __init__(self, title: str, config: Config | None, selection: str) -> None:
        self.title, self.config, self.selection = title, config, selection
        self.names: list[str] = []
        self.seeds: list[int | None] = []
        self.evaluations: dict[str, list[Evaluation]] = {}

    def add(self, name: str, seed: int | None, evaluations: Mapping[str, Evaluation]) -> None:
        first = next(iter(evaluations.values()))
        known = next(iter(self.evaluations.values()), [])
        if any(each.model["weights_sha256"] == first.model["weights_sha256"] for each in known):
            return  # a run and what was published of it are one training
        self.names.append(name)
        self.seeds.append(seed)
        for suite, evaluation in evaluations.items():
            self.evaluations.setdefault(suite, []).append(evaluation)

    def made(self, title: str) -> System:
        order = sorted(range(len(self.names)), key=lambda i: (self.seeds[i] is None, self.seeds[i] or 0))
        return System(
            title=title,
            names=tuple(self.names[i] for i in order),
            seeds=tuple(self.seeds[i] for i in order),
            evaluations={suite: tuple(each[i] for i in order) for suite, each in self.evaluations.items()},
            config=self.config,
        )


def _key(opened: OpenedModel, evaluations: Mapping[str, Evaluation]) -> str:
    """Equal for trainings of one system: of one config, on the same features, scored on the same features."""
    first = next(iter(evaluations.values()))
    trained_on = [opened.features.get("corpus"), opened.features.get("feature_id")]
    what = opened.reference if opened.config is None else seedless_values(opened.config)
    return repr([first.corpus, first.manifest_digest, trained_on, what])


def _titled(found: Sequence[_Found]) -> list[System]:
    """Systems with titles that differ: what was asked for, else the network and what is not alike in all of them."""
    values = [{} if each.config is None else seedless_values(each.config) for each in found]
    known = [each for each in values if each]
    # What a network does not look at stands at its default; which simulated text was read says more of a corpus.
    keys = [key for key in dict.fromkeys(key for each in known for key in each) if key != "model.simulation"]
    default = _flat(Config().to_dict())
    differing = [key for key in keys if len({repr(each.get(key, default[key])) for each in known}) > 1]
    if len({each["model.simulation"] for each in known if "model.simulation" in each}) > 1:
        differing.append("model.simulation")
    titles = []
    for each, flat in zip(found, values, strict=True):
        title = each.title or each.names[0]
        if not each.title and each.config is not None:
            model = each.config.model
            # What else the mode decides is said by the mode.
            expected = seedless_values(Config.from_dict({"model": {"name": model.name, "mode": model.mode}}))
            expected["model.mode"] = Config().model.mode
            own = [
                key
                for key in differing
                if key in flat and key != "model.name" and flat[key] != expected.get(key, default[key])
            ]
            said = [f"{key.rpartition('.')[2]}={flat[key]}" for key in own]
            title = ", ".join([NETWORK_TITLES.get(model.name, model.name), *said])
        titles.append(f"{title} (selected on test)" if each.selection == "published" else title)
    made = [each.made(title) for each, title in zip(found, titles, strict=True)]
    return [_distinct(system, made) for system in made]


def _distinct(system: System, systems: Sequence[System]) -> System:
    """Systems on several corpora or features, of one config: told apart by their first name."""
    if sum(other.title == system.title for other in systems) == 1:
        return system
    title = f"{system.title}: {system.names[0]}"
    return System(title, system.names, system.seeds, system.evaluations, system.config)


def seedless_values(config: Config) -> dict[str, Any]:
    """What a training hangs on but its seed, by `section.key`."""
    return {key: value for key, value in _flat(trained_values(config)).items() if key != "train.seed"}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Sections within sections, by their keys with dots."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found
