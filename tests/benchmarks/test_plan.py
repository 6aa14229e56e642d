"""The list of experiments: the committed one is sound, a wrong one is refused where it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.results.__main__ import PLAN as COMMITTED
from benchmarks.results.plan import read_plan
from lnln.config import SWITCHES, load_config
from lnln.errors import RefusedError
from lnln.runs import trained_values
from lnln.train.ablations import ABLATIONS, ablated
from tests.benchmarks.made_scores import PLAN, small_plan

SEARCH = "search: {title: Search, num_trials: 4"


def test_the_committed_plan_holds_what_the_page_is_about() -> None:
    plan = read_plan(COMMITTED)
    main = plan.groups[0]
    assert [each.name for each in main.experiments] == [
        "published",
        "published_as_shipped",
        "reference",
        "clean",
        "text_only",
    ]
    assert {each.seeds for each in main.experiments} == {(1111, 1112, 1113)}
    assert plan.mask_seeds == (0, 1, 2) and plan.rates == tuple(i / 10 for i in range(10))
    published, shipped = plan.experiment("published"), plan.experiment("published_as_shipped")
    assert published.config(1111) == shipped.config(1111), "one training, scored twice"
    assert (published.selection, shipped.selection) == ("validation", "published")
    for group in plan.groups:
        if group.kind == "changes":
            base = plan.experiment(group.against)
            for change in group.others():
                assert change.overrides == (*base.overrides, *change.own) or not group.overrides
                assert set(base.overrides) <= set(change.overrides) and change.own, "one thing at a time"
    switches = next(each for each in plan.groups if each.name == "switches")
    own = plan.experiment(switches.against)
    assert own in switches.experiments and own.seeds == (1111,)
    assert {each.config(1111).train.epochs for each in switches.experiments} == {8}
    turned = {each.own[0].removeprefix("model.").partition("=")[0] for each in switches.others()}
    assert turned == {*SWITCHES, "reconstruct"}, "each correction of the network has its row"
    for change in switches.others():
        key = change.own[0].removeprefix("model.").partition("=")[0]
        if key in SWITCHES:
            assert getattr(change.config(1).model, key) == SWITCHES[key][1] != getattr(own.config(1).model, key)
    assert plan.experiment("completeness_realised").config(1).loss.completeness_target == "realised"
    assert "own_masks" not in {each.name for each in plan.experiments()}
    assert "number of epochs and bfloat16 arithmetic" in main.note
    assert published.config(1).train.precision == "bfloat16"


def test_the_ablations_of_the_page_are_those_that_lnln_trains() -> None:
    group = next(each for each in read_plan(COMMITTED).groups if each.name == "ablations")
    ablations = group.experiments[:7]
    assert [each.name for each in ablations] == [
        "no_correction",
        "no_reconstruction",
        "no_dominant_fusion",
        "no_audio",
        "no_adversarial",
        "no_completeness",
        "no_missing_data",
    ]
    for each in ablations:
        assert (each.title, each.own) == (ABLATIONS[each.name].title, ABLATIONS[each.name].changes)
        base = load_config("mosi", ["train.precision=bfloat16", "train.seed=1111", *group.overrides])
        assert trained_values(each.config(1111)) == trained_values(ablated(base, ABLATIONS[each.name]))


def test_a_list_of_ablations_stands_before_experiments_of_its_own(tmp_path: Path) -> None:
    text = PLAN.replace("    base: clean\n", "    base: clean\n    ablations: [no_completeness, no_vision]\n")
    group = small_plan(tmp_path, text).groups[1]
    assert [each.name for each in group.experiments] == ["no_completeness", "no_vision", "no_adversarial", "no_audio"]
    assert group.experiments[1].overrides == ("train.epochs=2", "model.modalities=[text, audio]")


def test_overrides_come_from_file_base_group_and_entry_in_that_order(tmp_path: Path) -> None:
    text = PLAN.replace("    base: clean\n", "    base: clean\n    set: [loss.sentiment=2]\n")
    text = text.replace("base: clean\n", "base: clean\n    against: doubled\n")
    text = text.replace("      no_adv", "      doubled: {title: doubled}\n      no_adv")
    change = small_plan(tmp_path, text).experiment("no_adversarial")
    assert change.overrides == ("train.epochs=2", "loss.sentiment=2", "loss.adversarial=0")
    assert change.own == ("loss.adversarial=0",)
    config = change.config(5)
    assert (config.train.epochs, config.loss.sentiment, config.loss.adversarial, config.train.seed) == (2, 2.0, 0.0, 5)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("corpus: tiny", "corpus: runs", "a corpus is named"),
        ("corpus: tiny", "corpora: tiny", "did you mean 'corpus'"),
        ("seeds: [1, 2]", "seeds: [1, 1]", "groups.main.seeds must be whole numbers of 0 or more, each once"),
        ("seeds: [1, 2]", "seeds: []", "groups.main.seeds"),
        ("    seeds: [1, 2]\n", "", "groups.main lacks seeds"),
        ("rates: [0, 0.5]", "rates: [0, 1.5]", "rates must be numbers within [0, 1]"),
        ("against: text_only", "against: text_onyl", "did you mean 'text_only'"),
        ("    against: text_only\n", "", "as `against`"),
        ("    base: clean\n", "", "a group of changes has a `base`"),
        ("base: clean", "base: cleen", "did you mean 'clean'"),
        ("kind: changes", "kind: change", "must be one of systems, changes"),
        ("loss.adversarial=0", "loss.adversarial=-1", "no_adversarial: config key loss.adversarial must be 0 or more"),
        ("loss.adversarial=0", "loss.adverserial=0", "did you mean 'adversarial'"),
        ("loss.adversarial=0", "loss.adversarial=0.8", "train the same config"),
        ("loss.adversarial=0", "train.num_checkpoints=3", "changes nothing of 'clean'"),
        ("no_adversarial:", "No adversarial:", "a name has up to 60"),
        ("no_adversarial:", "clean:", "there is an experiment 'clean' already"),
        ("no_adversarial:", "main:", "'main' is both a group and an experiment"),
        ("clean: {title", "clean: {config: sampel, title", "no config called 'sampel'"),
        ("clean: {title", "clean: {selection: published, title", "add train.selection=published"),
        ("clean: {title", "clean: {like: text_only, title", "no experiment up to there"),
        ("base: clean", "base: clean\n    set: [train.epochs=1]", "give it an experiment without a `set`"),
        ("base: clean", "base: clean\n    against: text_only", "is not 'clean' with the `set` of the group"),
        ("base: clean", "base: clean\n    against: no_audio", "is not 'clean' with the `set` of the group"),
        ("seeds: [1]", "seeds: [3]", "'clean' is trained for none of its seeds, 3"),
        ("groups:", "groups: [", "is not YAML"),
        (
            "groups:",
            f"{SEARCH}, seeds: [5, 1111]}}\ngroups:",
            "search.seeds must be fresh, but the trials train with 1111",
        ),
        (
            "groups:",
            f"{SEARCH}, seeds: [5, 5]}}\ngroups:",
            "search.seeds must be whole numbers of 0 or more, each once",
        ),
        ("groups:", f"{SEARCH}}}\ngroups:", "search lacks seeds"),
        ("groups:", f"{SEARCH}, seeds: [5], num_candidates: 4}}\ngroups:", "more trials than candidates, got 4 of 4"),
        ("groups:", f"{SEARCH}, seeds: [5], num_candidates: 0}}\ngroups:", "1 candidate or more"),
        ("groups:", f"{SEARCH}, seeds: [5], set: [tune.epoch=3]}}\ngroups:", "search: unknown config key 'tune.epoch'"),
        ("groups:", f"{SEARCH}, seeds: [5], space: {{sentiment: 1}}}}\ngroups:", "search: the space's sentiment"),
        (
            "groups:",
            f"{SEARCH}, seeds: [5], set: [loss.adversarial=9]}}\ngroups:",
            "search: loss.adversarial is 9 and must",
        ),
        ("base: clean", "base: clean\n    ablations: []", "ablations must be a list of names"),
        ("base: clean", "base: clean\n    ablations: no_vision", "ablations must be a list of names"),
        ("base: clean", "base: clean\n    ablations: [{no_vision: 1}]", "ablations must be a list of names"),
        ("base: clean", "base: clean\n    ablations: [no_visoin]", "did you mean 'no_vision'"),
        ("base: clean", "base: clean\n    ablations: [no_vision, no_vision]", "must have each name once"),
        ("base: clean", "base: clean\n    ablations: [no_audio]", "has 'no_audio' as an ablation and as an experiment"),
        ("against: text_only", "against: text_only\n    ablations: [no_text]", "only a group of changes has a list"),
        ("no_adversarial:", "search:", "'search' is the study over the loss weights"),
        ("  main:", "  search:", "'search' is the study over the loss weights"),
        ("no_adversarial:", "report:", "'report' is the report on the main systems"),
        ("  main:", "  report:", "'report' is the report on the main systems"),
    ],
)
def test_refusals_name_the_place(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in PLAN
    with pytest.raises(RefusedError) as refused:
        small_plan(tmp_path, PLAN.replace(old, new, 1))
    assert said in str(refused.value).replace("main.experiments.", "")
    assert str(tmp_path / "plan.yaml") in str(refused.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"no plan of experiments at .*absent\.yaml"):
        read_plan(tmp_path / "absent.yaml")


def test_selecting_by_group_or_experiment(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    assert [each.name for each in plan.select("ablations, clean")] == ["clean", "no_adversarial", "no_audio"]
    assert len(plan.select(None)) == 4
    with pytest.raises(RefusedError, match="no group or experiment 'ablation'; did you mean 'ablations'"):
        plan.select("ablation")


def test_the_search_is_chosen_by_its_name(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, PLAN.replace("groups:", f"{SEARCH}, seeds: [5, 6]}}\ngroups:"))
    assert plan.search is not None and plan.search.config().train.epochs == 2, "with what is set for all"
    assert plan.select("search") == [] and plan.wants_search("search") and plan.wants_search(None)
    assert [each.name for each in plan.select("clean, search")] == ["clean"] and plan.wants_search("clean, search")
    assert not plan.wants_search("main")
    without = small_plan(tmp_path)
    assert without.search is None and not without.wants_search(None)
    with pytest.raises(RefusedError, match="no group or experiment 'search'"):
        without.select("search")


def test_the_committed_search_fits_into_an_hour_and_a_quarter() -> None:
    """On two cores, at 30 seconds an epoch (lnln/configs/mosi.yaml says 25 to 45)."""
    search = read_plan(COMMITTED).search
    assert search is not None
    config = search.config()
    settings = 1 + search.num_candidates
    num_epochs = search.num_trials * config.tune.epochs + len(search.seeds) * settings * config.train.epochs
    assert num_epochs * 30 <= 75 * 60
    assert (search.num_trials, len(search.seeds), config.tune.pruning, config.tune.max_concurrent_trials) == (
        12,
        3,
        "none",
        1,
    )


def test_one_training_for_equal_configs(tmp_path: Path) -> None:
    text = PLAN.replace("{title: clean LNLN}", "{title: clean LNLN, set: [train.selection=published]}").replace(
        "      text_only:", "      shipped: {title: as it ships, like: clean, selection: published}\n      text_only:"
    )
    trainings = small_plan(tmp_path, text).trainings()
    assert len(trainings) == 6
    assert {("clean", 1), ("shipped", 1)} in trainings and {("text_only", 2)} in trainings
