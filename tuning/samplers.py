"""Samplers by name, and suggestions that go on where they ended.

sampler = SeededSampler("tpe", seed=0)               # or "random", or a class of optuna.samplers by its name
require_sampler(sampler, space, ["minimize"])        # refuses what cannot be used, by trying it
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState

from lnln.config import fingerprint
from lnln.errors import RefusedError
from tuning.space import Space

# What this module keeps with the trials of a driver that is no more (user attribute).
INTERRUPTED = "interrupted"

_SHORT_NAMES = {"tpe": "TPESampler", "random": "RandomSampler"}
_ARGUMENTS: dict[str, dict[str, Any]] = {
    "TPESampler": {"n_startup_trials": 10, "multivariate": True, "constant_liar": True},
    # Otherwise the sequence begins in a corner of the space.
    "QMCSampler": {"scramble": True},
}
# Their points are one sequence, so another seed for each would be no sequence.
_ONE_SEED = ("QMCSampler",)
# Trials at random before a sampler is tried; more than any of them begins with.
_NUM_BEFORE = 11


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """The space in Optuna's words: of the numbers that are drawn, not of what they mean."""
    return {
        name: FloatDistribution(span.draw_low, span.high, log=span.scale == "log")
        for name, span in space.ranges.items()
    }


def is_interrupted(trial: FrozenTrial) -> bool:
    """Whether the trial's driver ended before it did."""
    return bool(trial.user_attrs.get(INTERRUPTED))


class SeededSampler(BaseSampler):
    """Suggestions that depend on (seed, number of trials before, their results) and nothing else.

    A study that was continued thus makes the suggestions of one that never stopped, and never the same ones twice.
    Trials that were interrupted do not count: each is followed by another with its parameters.
    So it is with TPE, random, GP and NSGA-II. CMA-ES and QMC number their own suggestions, and a driver that was killed
    has taken a number: a continued study goes on by other suggestions, which are as good.
    name: `tpe`, `random`, or a class of `optuna.samplers`; RefusedError for any other.
    """

    def __init__(self, name: str, seed: int) -> None:
        self.name, self._seed = name, seed
        self._class = _sampler_class(name)
        self._sampler = self._make(0)

    def describe(self) -> dict[str, Any]:
        """What a record needs to make the same suggestions again, with the version of Optuna."""
        return {"name": self._class.__name__, "seed": self._seed, **_ARGUMENTS.get(self._class.__name__, {})}

    def _make(self, index: int) -> BaseSampler:
        if not _has_defaults(self._class):
            raise RefusedError(f"tune.sampler {self.name!r} cannot be made by its name alone; use tpe or random")
        arguments = dict(_ARGUMENTS.get(self._class.__name__, {}))
        if "seed" in inspect.signature(self._class).parameters:
            is_one = self._class.__name__ in _ONE_SEED
            arguments["seed"] = int(fingerprint([self._seed, 0 if is_one else index])[:8], 16)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # which of Optuna's samplers are experimental
            try:
                return self._class(**arguments)
            except ImportError as error:
                raise RefusedError(f"tune.sampler {self.name!r} {_needed_package(error)}") from error

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        earlier = study.get_trials(deepcopy=False)[: trial.number]
        self._sampler = self._make(sum(not is_interrupted(other) for other in earlier))
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._sampler.after_trial(study, trial, state, values)


def require_sampler(
    sampler: SeededSampler, space: Space, directions: Sequence[Literal["minimize", "maximize"]]
) -> None:
    """RefusedError where `sampler` cannot suggest for this space and so many objectives. It is tried: what a sampler
    needs, a package or a single objective, Optuna finds out only then."""
    study = optuna.create_study(directions=list(directions), sampler=RandomSampler(0))
    try:
        for index in range(_NUM_BEFORE + 2):
            if index == _NUM_BEFORE:
                study.sampler = sampler
            trial = study.ask(distributions(space))
            study.tell(trial, [sum(trial.params.values()) + index] * len(directions))
    except ImportError as error:
        raise RefusedError(f"tune.sampler {sampler.name!r} {_needed_package(error)}") from error
    except Exception as error:  # each sampler has its own for what it cannot do
        objectives = "1 objective" if len(directions) == 1 else f"{len(directions)} objectives"
        raise RefusedError(
            f"tune.sampler {sampler.name!r} does not work for {objectives} over {', '.join(space.ranges)} "
            f"({_in_one_line(error)}); use tpe"
        ) from error


def _sampler_class(name: str) -> type[BaseSampler]:
    known = {
        each: made
        for each, made in vars(optuna.samplers).items()
        if inspect.isclass(made) and issubclass(made, BaseSampler) and not inspect.isabstract(made)
    }
    found = known.get(_SHORT_NAMES.get(name, name))
    if found is None:
        usable = sorted(each for each, made in known.items() if _has_defaults(made))
        raise RefusedError(
            f"tune.sampler must be tpe, random or one of optuna.samplers ({', '.join(usable)}), got {name!r}"
        )
    return found


def _has_defaults(made: type[BaseSampler]) -> bool:
    """Whether its name is all that it takes to make one."""
    parameters = inspect.signature(made).parameters.values()
    return all(
        each.default is not each.empty or each.kind in (each.VAR_KEYWORD, each.VAR_POSITIONAL) for each in parameters
    )


def _needed_package(error: ImportError) -> str:
    cause = error.__cause__ or error
    package = getattr(cause, "name", None)
    if package is None:
        return f"needs a package that is not installed: {_in_one_line(error)}"
    return f"needs the package {package}, which is not installed: pip install {package}"


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
