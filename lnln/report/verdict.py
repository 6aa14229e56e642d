"""What a report amounts to, in plain sentences: who is better than whom, and what to be careful of.

    for paragraph in verdict(corpus): print(paragraph.lead, paragraph.text)

Better and worse are said of intervals that do not hold 0, of nothing else, and never of what was selected on test.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lnln.evaluate.comparison import FEWEST_UTTERANCES
from lnln.evaluate.paired import Difference, format_difference, share_for
from lnln.evaluations import format_interval, format_score
from lnln.metrics import COLLAPSE_SHARE, TITLES
from lnln.report.blocks import Prose
from lnln.report.data import TEN_RATES, CorpusReport, SystemReport

SYNTHETIC = (
    "The corpus is synthetic: a small grammar of sentiment phrases made by this project. The numbers show that the "
    "path works; they say nothing of real speech."
)
# Of so many comparisons of equal systems one is expected to come out, since each interval is of 95%.
MANY_COMPARISONS = 20


# Neither better nor worse, nor that no difference is shown.
UNDECIDED = "undecided"
_SAID = ("better", "worse", UNDECIDED)
# Of a share that was stored with six digits.
SHARE_ROUNDING = 1e-5


def verdict(corpus: CorpusReport) -> tuple[Prose, ...]:
    """The systems against the reference, against constant answers, and at the highest rates; the first is the news."""
    said = [_against_reference(corpus), _against_constants(corpus), _at_the_highest(corpus), _selected_on_test(corpus)]
    return tuple(paragraph for paragraph in said if paragraph is not None)


def cautions(corpus: CorpusReport) -> list[str]:
    """What a reader could be misled by."""
    said = [SYNTHETIC] if corpus.synthetic else []
    told: dict[str, list[str]] = {}
    for system in corpus.models:
        for sentence in _of_system(corpus, system):
            told.setdefault(sentence, []).append(system.title)
    said += [f"{join(titles)}: {sentence}" for sentence, titles in told.items()]
    said += corpus.notes
    if corpus.num_labelled < FEWEST_UTTERANCES:
        said.append(
            f"{corpus.num_labelled} labelled utterance{'s are' if corpus.num_labelled > 1 else ' is'} too few for "
            f"intervals that can be believed: with fewer than {FEWEST_UTTERANCES} nothing is called better or worse."
        )
    judged = [difference for difference in _differences(corpus).values() if "mae" in difference]
    if any(not each["mae"].counts_training for each in judged):
        said.append(
            "Systems of a single training are compared as trainings, not as methods: what another seed would change is "
            "not counted in their intervals."
        )
    others = [system for system in corpus.others() if system.is_judged and corpus.system(corpus.reference).is_judged]
    if (num := len(others) * len(corpus.metrics)) >= MANY_COMPARISONS:
        said.append(
            f"{num} differences to {corpus.reference} are judged over all rates, of {len(others)} systems in "
            f"{len(corpus.metrics)} metrics; one of twenty such intervals misses the truth."
        )
    return said


def _of_system(corpus: CorpusReport, system: SystemReport) -> Iterable[str]:
    """What must be said of one system; it may be the same of several."""
    if system.note:
        yield f"these scores are {system.note}."
    if system.trained_on:
        yield f"trained on {system.trained_on}."
    yield from system.carries_over
    yield from _collapses(corpus, system)
    if system.absent_modalities:
        yield f"trained without {join(system.absent_modalities)}: no utterance of the training split has it."


def highest_answer(corpus: CorpusReport) -> tuple[Prose, ...]:
    """Behaviour where most is missing, which the LNLN paper leaves open: beside the reference, and what is left."""
    view = corpus.suites[TEN_RATES]
    rates = join([f"{rate:g}" for rate in view.highest_rates])
    reference = corpus.system(corpus.reference)
    said = []
    for title in _judged_highest(corpus, TEN_RATES):
        differences = view.highest[title]
        words = {metric: highest_word(corpus, title, metric) for metric in corpus.main_metrics}
        numbers = ", ".join(
            f"{TITLES[metric]} {format_difference(metric, differences[metric])}" for metric in corpus.main_metrics
        )
        said.append(Prose(f"{numbers}.", lead=f"{title}: {say_words(words) or 'no difference shown'}."))
    if said:
        about = f"Means over {rates}, less those of {reference.title}; accuracies in points of percent."
        said.insert(0, Prose(f"{about} {highest_intervals(corpus)}"))
    last = view.rates.index(view.highest_rates[-1])
    kept = [
        f"{system.title} {_points(left.value)}% ({_points(left.low)} to {_points(left.high)})"
        for system in corpus.systems
        for left in [system.robustness[TEN_RATES]["mae"].retention[last]]
        if left is not None
    ]
    if kept:
        lead = (
            f"Left at {view.highest_rates[-1]:g} of the gain over predicting the train mean that there is at 0, in MAE:"
        )
        said.append(Prose(f"{'; '.join(kept)}.", lead=lead))
    return tuple(said)


def say_words(words: Mapping[str, str]) -> str:
    """`better in MAE and worse in Corr`, by metric; empty where no difference is shown."""
    return join([f"{word} in {TITLES[metric]}" for metric, word in words.items() if word in _SAID])


def highest_word(corpus: CorpusReport, title: str, metric: str, suite: str = TEN_RATES) -> str:
    """`judged_word` of a difference at the highest rates; UNDECIDED where 0 lies outside of an interval that does not
    allow for how many are judged there, as in a report that was stored before intervals did."""
    difference = corpus.suites[suite].highest[title][metric]
    word = judged_word(corpus, title, difference)
    needed = share_for(max(1, _num_highest(corpus, suite)))
    return UNDECIDED if word in ("better", "worse") and difference.share < needed - SHARE_ROUNDING else word


def highest_intervals(corpus: CorpusReport, suite: str = TEN_RATES) -> str:
    """What the intervals of the differences at the highest rates hold; empty where none is judged there."""
    num = _num_highest(corpus, suite)
    shares = [each["mae"].share for each in corpus.suites[suite].highest.values() if "mae" in each]
    if not num or not shares:
        return ""
    if min(shares) >= share_for(num) - SHARE_ROUNDING:
        return (
            f"Intervals of these differences are of {100 * min(shares):.4g}%, so that all {num}, of each system in "
            f"{shown_metrics(corpus.main_metrics)}, hold together in 95 of 100 cases."
        )
    return (
        f"Intervals of these differences are of {100 * min(shares):.4g}%, each by itself. They do not allow for {num}, "
        f"so where one does not hold 0 it is {UNDECIDED} whether there is a difference."
    )


def _judged_highest(corpus: CorpusReport, suite: str) -> list[str]:
    """Titles of the systems whose differences at the highest rates may be judged."""
    if not corpus.system(corpus.reference).is_judged:
        return []
    return [title for title in corpus.suites[suite].highest if corpus.system(title).is_judged]


def _num_highest(corpus: CorpusReport, suite: str) -> int:
    return len(_judged_highest(corpus, suite)) * len(corpus.main_metrics)


def main_suite(corpus: CorpusReport) -> str:
    """The suite that a verdict is about: the ten rates, or the first that was scored."""
    return TEN_RATES if TEN_RATES in corpus.suites else next(iter(corpus.suites))


def join(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def _against_reference(corpus: CorpusReport) -> Prose:
    suite = main_suite(corpus)
    reference = corpus.system(corpus.reference)
    score = reference.scores[suite].mean["mae"]
    where = f"{_views(corpus, suite)} of {corpus.corpus}, {corpus.split} split"
    own = f"{format_score('mae', score.value)} ({format_interval('mae', (score.low, score.high))})"
    differences = {title: each["mae"] for title, each in _differences(corpus).items() if corpus.system(title).is_judged}
    if not differences or not reference.is_judged:
        num = len(reference.trainings)
        mean = f", mean of {num} trainings" if num > 1 else ""
        return Prose(f"Means over {where}{mean}.", lead=f"{reference.title} has MAE {own}.")
    models = {title: each for title, each in differences.items() if corpus.system(title).kind == "model"}
    words = {title: each.word for title, each in (models or differences).items()}
    news = " ".join(_news(words, reference.title))
    numbers = "; ".join(f"{title} {format_difference('mae', each)}" for title, each in differences.items())
    return Prose(
        f"MAE of {reference.title} is {own}, over {where}. Differences to it, lower is better: {numbers}.", lead=news
    )


def _news(words: Mapping[str, str], reference: str) -> list[str]:
    """words: of each system that is compared, by its title."""
    by_word: dict[str, list[str]] = {}
    for title, word in words.items():
        by_word.setdefault(word, []).append(title)
    said = []
    for word in ("better", "worse"):
        if titles := by_word.get(word):
            said.append(f"{join(titles)} {'is' if len(titles) == 1 else 'are'} {word} than {reference} in MAE.")
    if titles := by_word.get(UNDECIDED):
        said.append(f"Whether MAE of {join(titles)} differs from that of {reference} is {UNDECIDED}.")
    if titles := by_word.get("no difference shown"):
        said.append(f"No difference in MAE to {reference} is shown for {join(titles)}.")
    return said


def _against_constants(corpus: CorpusReport) -> Prose | None:
    suite = main_suite(corpus)
    by_word: dict[str, list[str]] = {}
    for system in corpus.systems:
        gain = system.scores[suite].gains.get("mae")
        if gain is not None and system.is_judged:
            by_word.setdefault(gain.word, []).append(f"{system.title} {format_difference('mae', gain)}")
    if not by_word:
        return None
    constant = corpus.suites[suite].baselines["predict_mean"]["mae"]
    numbers = ". ".join(f"{word[0].upper()}{word[1:]}: {'; '.join(titles)}" for word, titles in by_word.items())
    return Prose(f"It has MAE {format_score('mae', constant)}. {numbers}.", lead="Against the train mean for everyone:")


def _at_the_highest(corpus: CorpusReport) -> Prose | None:
    suite = main_suite(corpus)
    view, titles = corpus.suites[suite], _judged_highest(corpus, suite)
    if not titles:
        return None
    models = [title for title in titles if corpus.system(title).kind == "model"] or titles
    words = {title: highest_word(corpus, title, "mae", suite) for title in models}
    news = _news(words, corpus.reference)
    numbers = "; ".join(f"{title} {format_difference('mae', view.highest[title]['mae'])}" for title in titles)
    said = " ".join([*news, f"Differences in MAE: {numbers}.", highest_intervals(corpus, suite)])
    return Prose(said, lead=f"At the highest rates, {join([f'{rate:g}' for rate in view.highest_rates])}:")


def _selected_on_test(corpus: CorpusReport) -> Prose | None:
    titles = [system.title for system in corpus.systems if not system.is_judged]
    if not titles:
        return None
    return Prose(
        f"{join(titles)}: test took part in choosing the weights, so the scores are for comparison with tables that "
        "were made so, and nothing is called better or worse than them.",
        lead="Selected on test.",
    )


def _differences(corpus: CorpusReport) -> Mapping[str, Mapping[str, Difference]]:
    return corpus.suites[main_suite(corpus)].differences


def _views(corpus: CorpusReport, suite: str) -> str:
    num = len(corpus.suites[suite].rates)
    return f"{num} missing rate{'' if num == 1 else 's'}" if suite == TEN_RATES else f"{num} views of {suite}"


def _collapses(corpus: CorpusReport, system: SystemReport) -> Iterable[str]:
    for suite, scores in system.scores.items():
        names = [
            f"{name} ({share:.0%})"
            for name, share in zip(corpus.suites[suite].names, scores.collapse_share, strict=True)
            if share > COLLAPSE_SHARE
        ]
        if names:
            yield f"nearly all utterances get the same class, in {suite} at {', '.join(names)}: it has collapsed there."


def judged_word(corpus: CorpusReport, title: str, difference: Difference) -> str:
    """better, worse or no difference shown; nothing where test took part in choosing one of the two."""
    both = corpus.system(title).is_judged and corpus.system(corpus.reference).is_judged
    return difference.word if both else ""


def _points(share: float) -> str:
    """In percent, a negative zero as 0."""
    return f"{round(100 * share) + 0:d}".replace("-", "−")


def shown_metrics(metrics: Sequence[str]) -> str:
    return join([TITLES[metric] for metric in metrics])
