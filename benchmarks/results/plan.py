"""What the results page is made of: groups of experiments, read from a YAML file and checked before anything runs.

    plan = read_plan(Path("benchmarks/results.yaml"))
    for experiment in plan.experiments(): experiment.config(seed=1111)

A group is one section of the page. `systems` are compared with one of them (`against`); `changes` are a base and what
each setting, alone, does to it.

Changes may be trained otherwise than their base, for fewer epochs say: the group states that in its `set`, and has an
experiment without a `set` of its own, the base trained the same way, which it names in `against`. It is trained for the
seeds of the group and stands in the table as its base. A comparison of unlike with unlike is refused.

    switches:
      kind: changes
      base: reference
      set: [train.epochs=8]
      against: reference_8
      experiments:
        reference_8: {title: 'reference network, 8 epochs'}
        mask_padding: {title: padding masked, set: [model.mask_padding=true]}

The file, where `?` marks what may be left out:

    corpus: mosi
    config: mosi                       # of every experiment that names none
    set: [train.epochs=16]             # ? so are these
    mask_seeds: [0, 1, 2]              # ? rates, validation_rates
    groups:
      main:
        kind: systems                  # or changes
        title: Main systems
        seeds: [1111, 1112]
        against: text_only             # changes: ? the base, or one of their own
        base: clean                    # changes: whose config and set the group starts from
        set: [train.epochs=8]          # ? of all of the group
        test: true                     # ? false: only the validation split is looked at
        experiments:
          clean: {title: clean LNLN, config: mosi, like: other, set: [model.mode=clean], selection: validation}
        ablations: [no_correction]     # ? of changes: experiments of these names of lnln/train/ablations.py, first
    search:                            # ? a study over the loss weights, and the choice from it
      title: Searching the loss weights
      num_trials: 12
      seeds: [2111, 2112]              # fresh ones, for the choice
      num_candidates: 1                # ? trials that are compared with what is configured
      set: [tune.epochs=3]             # ? and `config`; the study is run as its `tune` says
      space: {adversarial: {low: 0.1, high: 3}}                 # ? the default of tuning/space.py
    elsewhere: {source: ..., rows: [{title: ..., mae: 1.1}]}    # ? figures of others, quoted
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from lnln.config import Config, CorruptionConfig, fingerprint, from_dict, load_config
from lnln.data.manifest import check_corpus_name
from lnln.errors import RefusedError
from lnln.evaluations import evaluation_specs
from lnln.runs import trained_values
from lnln.train.ablations import ABLATIONS
from tuning.space import DEFAULT_SPACE, Space

Selection = Literal["validation", "published"]
# What the search and the report are called where groups and experiments are chosen.
SEARCH, REPORT = "search", "report"
# How every model is corrupted when it is scored, whatever its own config says of masks: so all see the same views.
VIEWS = CorruptionConfig()


@dataclass(frozen=True)
class Experiment:
    """One way to train, and how its model is chosen; a training for each seed of its group.

    overrides: all of them, own: those that its entry in the file states. read_test: whether its test scores are wanted.
    """

    name: str
    title: str
    config_name: str
    overrides: tuple[str, ...]
    own: tuple[str, ...]
    selection: Selection
    seeds: tuple[int, ...]
    read_test: bool

    def config(self, seed: int) -> Config:
        return load_config(self.config_name, [*self.overrides, f"train.seed={seed}"])


@dataclass(frozen=True)
class Group:
    """One section of the page. against: name of the experiment that the others are compared with.

    base, overrides: what the file says that all of its experiments start from; base None for systems.
    """

    name: str
    kind: Literal["systems", "changes"]
    title: str
    note: str
    against: str
    experiments: tuple[Experiment, ...]
    base: str | None
    overrides: tuple[str, ...]

    def others(self) -> tuple[Experiment, ...]:
        """Those that are compared with `against`."""
        return tuple(each for each in self.experiments if each.name != self.against)


@dataclass(frozen=True)
class SearchPlan:
    """The section of a study over the loss weights. seeds: those that the choice is trained with."""

    title: str
    note: str
    config_name: str
    overrides: tuple[str, ...]
    space: Space
    num_trials: int
    seeds: tuple[int, ...]
    num_candidates: int

    def config(self) -> Config:
        return load_config(self.config_name, self.overrides)


@dataclass(frozen=True)
class QuotedRow:
    """Ten-rate means that somebody else measured; shares within [0, 1], None where not known."""

    title: str
    acc7: float | None = None
    acc2_np: float | None = None
    mae: float | None = None
    corr: float | None = None


@dataclass(frozen=True)
class Quoted:
    """Figures that this project did not make, and whose they are."""

    source: str
    rows: tuple[QuotedRow, ...]


@dataclass(frozen=True)
class Plan:
    """All of it. rates, mask_seeds: of the test views; validation_rates with the same mask seeds: of the others."""

    corpus: str
    rates: tuple[float, ...]
    validation_rates: tuple[float, ...]
    mask_seeds: tuple[int, ...]
    groups: tuple[Group, ...]
    search: SearchPlan | None
    elsewhere: Quoted | None

    def experiments(self) -> Iterator[Experiment]:
        for group in self.groups:
            yield from group.experiments

    def experiment(self, name: str) -> Experiment:
        return next(each for each in self.experiments() if each.name == name)

    def trainings(self) -> list[set[tuple[str, int]]]:
        """For each training, the experiments and seeds that it is scored for: equal configs are trained once."""
        shared: dict[str, set[tuple[str, int]]] = {}
        for experiment in self.experiments():
            for seed in experiment.seeds:
                identity = fingerprint(trained_values(experiment.config(seed)))
                shared.setdefault(identity, set()).add((experiment.name, seed))
        return list(shared.values())

    def select(self, only: str | None) -> list[Experiment]:
        """Experiments by names of groups or of their own, with commas between; all for None. Refuses unknown names."""
        if only is None:
            return list(self.experiments())
        members = {group.name: {each.name for each in group.experiments} for group in self.groups}
        members |= {each.name: {each.name} for each in self.experiments()}
        members |= {SEARCH: set[str]()} if self.search is not None else {}
        asked = _names(only)
        for name in asked:
            if name not in members:
                raise RefusedError(f"there is no group or experiment {name!r}{_close(name, members)}")
        wanted = set().union(*(members[name] for name in asked))
        return [each for each in self.experiments() if each.name in wanted]

    def wants_search(self, only: str | None) -> bool:
        """Whether the search is among those that `only` names, as in `select`."""
        return self.search is not None and (only is None or SEARCH in _names(only))

    def validation_view_ids(self) -> list[str]:
        return self._view_ids(self.validation_rates, self.mask_seeds)

    def test_view_ids(self) -> list[str]:
        return self._view_ids(self.rates, self.mask_seeds)

    def _view_ids(self, rates: tuple[float, ...], mask_seeds: tuple[int, ...]) -> list[str]:
        return [spec.view_id for spec in evaluation_specs(VIEWS, rates, mask_seeds)]


def read_plan(path: Path) -> Plan:
    """The plan in the YAML file `path`; RefusedError, naming file and place, for whatever is wrong in it."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RefusedError(f"no plan of experiments at {path}; benchmarks/results.yaml is one") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RefusedError(f"plan {path} is not YAML: {' '.join(str(error).split())}") from error
    try:
        return _plan(values)
    except RefusedError as error:
        raise RefusedError(f"plan {path}: {error}") from error


@dataclass(frozen=True)
class _Entry:
    """An experiment as the file states it."""

    title: str
    config: str | None = None
    like: str | None = None
    set: tuple[str, ...] = ()
    selection: Selection = "validation"


@dataclass(frozen=True)
class _Section:
    """A group as the file states it, without its experiments."""

    kind: Literal["systems", "changes"]
    title: str
    seeds: tuple[int, ...]
    note: str = ""
    base: str | None = None
    against: str | None = None
    set: tuple[str, ...] = ()
    test: bool = True


@dataclass(frozen=True)
class _Study:
    """A search as the file states it, without its space."""

    title: str
    num_trials: int
    seeds: tuple[int, ...]
    note: str = ""
    num_candidates: int = 1
    config: str | None = None
    set: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Top:
    """The file without its groups."""

    corpus: str
    config: str | None = None
    set: tuple[str, ...] = ()
    rates: tuple[float, ...] = tuple(rate for rate in VIEWS.rates if not isinstance(rate, tuple))
    validation_rates: tuple[float, ...] = tuple(rate for rate in VIEWS.validation_rates if not isinstance(rate, tuple))
    mask_seeds: tuple[int, ...] = (0, 1, 2)


def _plan(values: object) -> Plan:
    content = _mapping(values, "it")
    groups = _mapping(content.pop("groups", None), "groups")
    quoted, study = content.pop("elsewhere", None), content.pop(SEARCH, None)
    top = _decode(_Top, content, "")
    check_corpus_name(top.corpus)
    _check_numbers("mask_seeds", top.mask_seeds, lambda seed: seed >= 0, "whole numbers of 0 or more")
    for key in ("rates", "validation_rates"):
        _check_numbers(key, getattr(top, key), lambda rate: 0 <= rate <= 1, "numbers within [0, 1]")
    made: dict[str, Experiment] = {}
    listed = []
    for name, section in groups.items():
        listed.append(_group(str(name), _mapping(section, f"groups.{name}"), top, made))
    names = [group.name for group in listed]
    if shared := set(names) & set(made):
        raise RefusedError(f"{min(shared)!r} is both a group and an experiment; give one of them another name")
    for name, what in ((SEARCH, "the study over the loss weights"), (REPORT, "the report on the main systems")):
        if name in {*names, *made}:
            raise RefusedError(f"{name!r} is {what}; give the group or experiment another name")
    plan = Plan(
        top.corpus,
        top.rates,
        top.validation_rates,
        top.mask_seeds,
        tuple(listed),
        None if study is None else _search(_mapping(study, SEARCH), top),
        None if quoted is None else _quoted(_mapping(quoted, "elsewhere")),
    )
    _check_differences(plan)
    return plan


def _group(name: str, values: dict[str, Any], top: _Top, made: dict[str, Experiment]) -> Group:
    where = f"groups.{name}"
    listed, own = _ablations(values.pop("ablations", None), f"{where}.ablations"), dict[str, Any]()
    if not listed or "experiments" in values:
        own = _mapping(values.pop("experiments", None), f"{where}.experiments")
    if shared := set(listed) & set(own):
        raise RefusedError(f"{where} has {min(shared)!r} as an ablation and as an experiment; drop one of them")
    section = _decode(_Section, values, f"{where}.")
    if listed and section.kind == "systems":
        raise RefusedError(f"{where}: ablations change a base, so only a group of changes has a list of them")
    _check_numbers(f"{where}.seeds", section.seeds, lambda seed: seed >= 0, "whole numbers of 0 or more")
    if (section.base is None) != (section.kind == "systems"):
        raise RefusedError(f"{where}: a group of changes has a `base`, a group of systems has none")
    base = None if section.base is None else _known(section.base, made, f"{where}.base")
    experiments = []
    for key, value in {**listed, **own}.items():
        experiment = _experiment(str(key), value, section, base, top, made, where)
        made[experiment.name] = experiment
        experiments.append(experiment)
    against = section.against or section.base
    if against is None:
        raise RefusedError(f"{where}: a group of systems says which of them the others are compared with, as `against`")
    if not set(_known(against, made, f"{where}.against").seeds) & set(section.seeds):
        raise RefusedError(
            f"{where}: {against!r} is trained for none of its seeds, {', '.join(map(str, section.seeds))}"
        )
    return Group(
        name, section.kind, section.title, section.note, against, tuple(experiments), section.base, section.set
    )


def _ablations(names: object, where: str) -> dict[str, Any]:
    """Entries of experiments by the names of ABLATIONS; none where the file lists none."""
    if names is None:
        return {}
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise RefusedError(f"{where} must be a list of names of lnln/train/ablations.py, got {names!r}")
    for name in names:
        if name not in ABLATIONS:
            raise RefusedError(f"{where} has {name!r}, which is no ablation{_close(name, ABLATIONS)}")
    if len(set(names)) < len(names):
        raise RefusedError(f"{where} must have each name once, got {names!r}")
    return {name: {"title": ABLATIONS[name].title, "set": list(ABLATIONS[name].changes)} for name in names}


def _experiment(
    name: str,
    value: object,
    section: _Section,
    base: Experiment | None,
    top: _Top,
    made: Mapping[str, Experiment],
    group: str,
) -> Experiment:
    where = f"{group}.experiments.{name}"
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,59}", name):
        raise RefusedError(f"{where}: a name has up to 60 lower-case letters, digits and '_', and starts with a letter")
    if name in made:
        raise RefusedError(f"{where}: there is an experiment {name!r} already; give one of them another name")
    entry = _decode(_Entry, _mapping(value, where), f"{where}.")
    if entry.like is not None and entry.config is not None:
        raise RefusedError(f"{where}: `like` brings its own config; leave out `config`")
    source = base if entry.like is None else _known(entry.like, made, f"{where}.like")
    if source is not None and entry.config is None:
        config_name, inherited = source.config_name, source.overrides
    else:
        config_name, inherited = entry.config or top.config or "", top.set
    if not config_name:
        raise RefusedError(f"{where} names no config, and neither does the file; add `config: mosi`")
    experiment = Experiment(
        name=name,
        title=entry.title,
        config_name=config_name,
        overrides=(*inherited, *section.set, *entry.set),
        own=entry.set,
        selection=entry.selection,
        seeds=section.seeds,
        read_test=section.test,
    )
    try:
        config = experiment.config(section.seeds[0])
    except RefusedError as error:
        raise RefusedError(f"{where}: {error}") from error
    if entry.selection == "published" and config.train.selection != "published":
        raise RefusedError(
            f"{where}: a model that is chosen as published comes from a run that kept it; "
            "add train.selection=published to its `set`"
        )
    return experiment


def _search(values: dict[str, Any], top: _Top) -> SearchPlan:
    space = values.pop("space", None)
    entry = _decode(_Study, values, f"{SEARCH}.")
    _check_numbers(f"{SEARCH}.seeds", entry.seeds, lambda seed: seed >= 0, "whole numbers of 0 or more")
    if not 1 <= entry.num_candidates < entry.num_trials:
        raise RefusedError(
            f"{SEARCH} must have 1 candidate or more, and more trials than candidates, got {entry.num_candidates} of "
            f"{entry.num_trials}"
        )
    config_name = entry.config or top.config
    if not config_name:
        raise RefusedError(f"{SEARCH} names no config, and neither does the file; add `config: mosi`")
    try:
        wanted = SearchPlan(
            title=entry.title,
            note=entry.note,
            config_name=config_name,
            overrides=(*top.set, *entry.set),
            space=DEFAULT_SPACE if space is None else Space.from_dict(space),
            num_trials=entry.num_trials,
            seeds=entry.seeds,
            num_candidates=entry.num_candidates,
        )
        config = wanted.config()
        wanted.space.require(config)
    except RefusedError as error:
        raise RefusedError(f"{SEARCH}: {error}") from error
    if used := set(entry.seeds) & set(config.tune.seeds or [config.train.seed]):
        raise RefusedError(f"{SEARCH}.seeds must be fresh, but the trials train with {min(used)} too")
    return wanted


def _check_differences(plan: Plan) -> None:
    """A change that changes nothing, or two experiments that are the same, are slips of the pen."""
    seen: dict[str, str] = {}
    for experiment in plan.experiments():
        config = experiment.config(experiment.seeds[0])
        identity = f"{config.fingerprint()} {experiment.selection}"
        if identity in seen:
            raise RefusedError(
                f"experiments {seen[identity]!r} and {experiment.name!r} train the same config; drop one of them"
            )
        seen[identity] = experiment.name
    for group in plan.groups:
        if group.base is not None:
            against, base = plan.experiment(group.against), plan.experiment(group.base)
            likewise = _comparable(load_config(base.config_name, [*base.overrides, *group.overrides, "train.seed=0"]))
            if _comparable(against.config(0)) != likewise:
                raise RefusedError(
                    f"groups.{group.name} is compared with {group.against!r}, which is not {group.base!r} with the "
                    "`set` of the group; give it an experiment without a `set`, and name that as `against`"
                )
            for experiment in group.others():
                if _comparable(experiment.config(0)) == likewise:
                    raise RefusedError(
                        f"groups.{group.name}.experiments.{experiment.name} changes nothing of {group.against!r}"
                    )


def _comparable(config: Config) -> dict[str, Any]:
    """What decides about the validation-selected model."""
    values = trained_values(config)
    del values["train"]["selection"]
    return values


def _quoted(values: dict[str, Any]) -> Quoted:
    rows = values.pop("rows", None)
    if not isinstance(rows, list) or not rows or set(values) != {"source"}:
        raise RefusedError("elsewhere has a `source` and a list of `rows`")
    made = [_decode(QuotedRow, _mapping(row, f"elsewhere.rows[{i}]"), "elsewhere.rows.") for i, row in enumerate(rows)]
    return Quoted(str(values["source"]), tuple(made))


def _decode(cls: type[Any], values: dict[str, Any], where: str) -> Any:
    try:
        return from_dict(cls, values, where=where)
    except TypeError as error:  # a key without a default
        missing = re.findall(r"'(\w+)'", str(error))
        raise RefusedError(f"{where.rstrip('.') or 'the file'} lacks {', '.join(missing)}") from error


def _mapping(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not value:
        raise RefusedError(f"{where} must be a section with keys of its own, got {value!r}")
    return {str(key): entry for key, entry in value.items()}


def _names(only: str) -> list[str]:
    return [name.strip() for name in only.split(",")]


def _known(name: str, made: Mapping[str, Experiment], where: str) -> Experiment:
    if name not in made:
        raise RefusedError(f"{where} is {name!r}, which no experiment up to there is called{_close(name, made)}")
    return made[name]


def _check_numbers(key: str, numbers: tuple[Any, ...], holds: Any, expected: str) -> None:
    if not numbers or len(set(numbers)) < len(numbers) or not all(holds(number) for number in numbers):
        raise RefusedError(f"{key} must be {expected}, each once, got {list(numbers)}")


def _close(name: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(known) or 'none'}"
