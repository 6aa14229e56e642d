from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from benchmarks.performance import plain_lnln
from benchmarks.performance.plain_lnln import Shape
from tests import oracle
from tests.lnln.models import plain_sdumc
from tests.lnln.models.oracle_cases import write_case

ORACLE = Path(__file__).resolve().parents[2] / "shared" / "oracle"
PUBLISHED = ORACLE / "lnln"
needs_published = pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published numbers are not beside this clone")

SHAPES = {
    "own_heads_and_depths": Shape(),
    "one_token": Shape(tokens=1, kept=1),
    "reads_into_its_input": Shape(tokens=2, kept=4),  # more tokens read than it has of its own
    "odd_heads": Shape(dim=15, hidden=4, head_dim=6, heads=dict.fromkeys(Shape().heads, 5), bert_dim=12, bert_heads=3),
    "fewer_hyper_layers_than_dominant_features": Shape(num_hyper=2, depths={**Shape().depths, "dominant": 3}),
    "one_dominant_layer": Shape(depths={**Shape().depths, "dominant": 1, "fusion": 1}, bert_layers=1),
}


def corpus_shape(lengths: tuple[int, int, int], feature_dims: tuple[int, int], fusion_depth: int) -> Shape:
    """The published depths, 8 tokens and the features of a corpus (text, vision, audio), narrow to be quick."""
    depths = dict.fromkeys(Shape().depths, 2) | {"fusion": fusion_depth}
    return Shape(
        dim=32,
        hidden=32,
        tokens=8,
        kept=8,
        lengths=lengths,
        feature_dims=feature_dims,
        heads=dict.fromkeys(Shape().heads, 2),
        depths=depths,
        bert_dim=32,
        bert_heads=4,
        max_positions=64,
    )


CORPORA = {
    "mosi": corpus_shape((50, 500, 375), (20, 5), fusion_depth=2),
    "mosei": corpus_shape((50, 500, 500), (35, 74), fusion_depth=4),
    "sims": corpus_shape((39, 55, 400), (709, 33), fusion_depth=4),
}


@needs_published
def test_the_published_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert oracle.main(["lnln", str(PUBLISHED)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("EQUAL")


@needs_published
def test_the_published_numbers_of_sdumc(capsys: pytest.CaptureFixture[str]) -> None:
    assert oracle.main(["sdumc", str(ORACLE / "sdumc")]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1].startswith("EQUAL")
    for case in ("sdumc_mia_on", "sdumc_mia_off"):
        for what in ("out.full.prediction", "out.missing.text_query", "loss.rnc", "total", "grad.fc_att"):
            assert f"{case} {what} " in out


@needs_published
def test_the_published_metrics() -> None:
    assert oracle.main(["metrics", str(PUBLISHED / "metrics.json")]) == 0


@pytest.mark.parametrize("name", SHAPES)
def test_other_sizes(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_case(tmp_path, "train_b6", SHAPES[name], num_utterances=4)
    write_case(tmp_path, "train_b1", SHAPES[name], num_utterances=1, with_weights=False)
    write_case(tmp_path, "eval_b2", SHAPES[name], num_utterances=2, is_training=False, with_weights=False)
    code = oracle.main(["lnln", str(tmp_path)])
    out = capsys.readouterr().out
    assert code == 0, "\n".join(line for line in out.splitlines() if "DIFFERS" in line)
    for case in ("train_b6", "train_b1", "eval_b2"):
        assert f"{case:12} out.sentiment_preds" in out


@pytest.mark.parametrize("name", CORPORA)
def test_the_sizes_of_the_papers_corpora(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Each owner of weights has the others that do not bring theirs: nothing is called train_b6.
    write_case(tmp_path, f"{name}_train", CORPORA[name], num_utterances=2, base={"beta": 0.8})
    for num in (1, 2):
        write_case(tmp_path, f"{name}_eval_b{num}", CORPORA[name], num_utterances=num, is_training=False)
    steeper = {"lr": 1e-3, "weight_decay": 0.1}
    write_case(tmp_path, f"{name}_b1", CORPORA[name], num_utterances=1, with_weights=False, base=steeper)
    assert oracle.main(["lnln", str(tmp_path)]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("weights", [{"beta": 0.0}, {"alpha": 0.0, "gamma": 0.0}, {"sigma": 0.0}])
def test_other_loss_weights(weights: dict[str, float], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_case(tmp_path, "train_b6", Shape(), num_utterances=3, base=weights)
    assert oracle.main(["lnln", str(tmp_path)]) == 0, capsys.readouterr().out


def test_inputs_shorter_than_the_positions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_case(tmp_path, "train_b6", Shape(), num_utterances=3, lengths=(5, 11, 4))
    assert oracle.main(["lnln", str(tmp_path)]) == 0, capsys.readouterr().out


def rewrite(path: Path, drop: tuple[str, ...] = (), **record: object) -> None:
    """Take numbers that begin with `drop` out of a case, and change keys of its JSON (None: remove)."""
    numbers = load_file(path.with_suffix(".safetensors"))
    kept = {key: value for key, value in numbers.items() if not key.startswith(drop)} if drop else numbers
    save_file(kept, path.with_suffix(".safetensors"))
    values = json.loads(path.with_suffix(".json").read_text()) | record
    path.with_suffix(".json").write_text(json.dumps({k: v for k, v in values.items() if v is not None}))


@pytest.mark.parametrize(
    ("drop", "record"),
    [
        (("mid.",), {}),
        (("grad.",), {"gradnorm": None, "nograd": None}),
        (("grad.dmml", "grad.h_p"), {"gradnorm": None, "losses_after_1_step": None}),
        ((), {"losses": None, "losses_after_1_step": None}),
        (("in.missing_rate_a", "in.missing_rate_v", "in.text_len"), {}),
    ],
)
def test_cases_that_hold_less_are_checked_for_what_they_hold(
    drop: tuple[str, ...], record: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_case(tmp_path, "train_b6", Shape(), num_utterances=3)
    rewrite(tmp_path / "train_b6", drop, **record)
    assert oracle.main(["lnln", str(tmp_path)]) == 0, capsys.readouterr().out
    rewrite(tmp_path / "train_b6", ("out.sentiment",))
    numbers = load_file(tmp_path / "train_b6.safetensors")
    numbers["out.rec_feats"] += 0.01
    save_file(numbers, tmp_path / "train_b6.safetensors")
    assert oracle.main(["lnln", str(tmp_path)]) == 1


def test_an_evaluation_needs_nothing_of_the_complete_input(tmp_path: Path) -> None:
    write_case(tmp_path, "eval", Shape(), num_utterances=3, is_training=False)
    complete = ("in.text_len", "in.label", "in.missing_rate")
    numbers = load_file(tmp_path / "eval.safetensors")
    for name in ("in.text", "in.audio", "in.vision"):
        del numbers[name]
    save_file(numbers, tmp_path / "eval.safetensors")
    rewrite(tmp_path / "eval", complete)
    assert oracle.main(["lnln", str(tmp_path)]) == 0


@pytest.mark.parametrize(
    ("drop", "record", "said"),
    [
        (("in.missing_rate_l",), {}, "has no in.missing_rate_l"),
        (("in.text_m",), {}, "has no in.text_m"),
        ((), {"args": {"base": {}}}, "heads must be|does not state args.base.alpha"),
        ((), {"args": {"base": {"train_mode": "classification"}}}, "train_mode 'classification', expected regression"),
    ],
)
def test_cases_that_cannot_be_checked_are_refused_by_one_line(
    drop: tuple[str, ...], record: dict[str, object], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_case(tmp_path, "train_b6", Shape(), num_utterances=3)
    rewrite(tmp_path / "train_b6", drop, **record)
    capsys.readouterr()
    assert oracle.main(["lnln", str(tmp_path)]) == 2
    captured = capsys.readouterr().err
    assert re.search(said, captured) and len(captured.splitlines()) == 1


def test_weights_come_from_the_case_with_the_same_network(tmp_path: Path) -> None:
    deep = Shape(depths={**Shape().depths, "fusion": 2}, heads={**Shape().heads, "fusion": 4})
    write_case(tmp_path, "train_b6", Shape(), num_utterances=2)
    write_case(tmp_path, "train_b6_deep", deep, num_utterances=2)
    write_case(tmp_path, "eval_deep", deep, num_utterances=2, is_training=False, with_weights=False)
    write_case(tmp_path, "eval", Shape(), num_utterances=2, is_training=False, with_weights=False)
    assert oracle.main(["lnln", str(tmp_path)]) == 0


def test_of_several_owners_the_one_with_the_most_similar_name_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = plain_lnln.make_weights
    for seed, owner in enumerate(("train_b6", "other_b6", "mosei_train", "mosi_train", "train_mosei", "train_sims")):
        with monkeypatch.context() as patch:
            patch.setattr(plain_lnln, "make_weights", lambda shape, seed=seed: weights(shape, seed))
            write_case(tmp_path, owner, Shape(), num_utterances=2, is_training=False)
            borrower = {
                "train_b6": "train_b1",
                "other_b6": "other_b1",
                "mosei_train": "mosei_eval_b1",
                "mosi_train": "mosi_eval_b1",
                "train_mosei": "eval_mosei",
                "train_sims": "eval_sims",
            }[owner]
            write_case(tmp_path, borrower, Shape(), num_utterances=1, is_training=False, with_weights=False)
    assert oracle.main(["lnln", str(tmp_path)]) == 0


def test_of_owners_with_equally_similar_names_it_is_train_b6(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_case(tmp_path, "train_b6", Shape(), num_utterances=2, is_training=False)
    write_case(tmp_path, "quick", Shape(), num_utterances=2, is_training=False, with_weights=False)
    weights = plain_lnln.make_weights
    monkeypatch.setattr(plain_lnln, "make_weights", lambda shape, seed=0: weights(shape, 5))
    write_case(tmp_path, "another", Shape(), num_utterances=2, is_training=False)
    assert oracle.main(["lnln", str(tmp_path)]) == 0


def test_names_of_a_model_that_was_trained_on_several_gpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_case(tmp_path, "train_b6", Shape(), num_utterances=3)
    assert oracle.main(["lnln", str(tmp_path)]) == 0
    plain = capsys.readouterr().out
    path = tmp_path / "train_b6.safetensors"
    wrapped = {re.sub(r"^(sd|grad)\.", r"\1.module.", name): tensor for name, tensor in load_file(path).items()}
    save_file(wrapped, path)
    record = json.loads(path.with_suffix(".json").read_text())
    norms = {f"module.{name}": norm for name, norm in record["gradnorm"].items()}
    rewrite(tmp_path / "train_b6", gradnorm=norms, nograd=[f"module.{name}" for name in record["nograd"]])
    assert oracle.main(["lnln", str(tmp_path)]) == 0
    assert capsys.readouterr().out == plain


@pytest.mark.parametrize("changed", ["out.w", "mid.hyper.1", "grad.h_p", "grad.proj_l.0.bias", "sd.dmml.3.bias"])
def test_a_changed_number_is_found(changed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_case(tmp_path, "train_b6", Shape(), num_utterances=3)
    path = tmp_path / "train_b6.safetensors"
    numbers = load_file(path)
    numbers[changed] = numbers[changed] + 1e-3
    save_file(numbers, path)
    assert oracle.main(["lnln", str(tmp_path)]) == 1
    assert "DIFFERS: " in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize("section", ["losses", "gradnorm", "losses_after_1_step"])
def test_a_changed_record_is_found(section: str, tmp_path: Path) -> None:
    write_case(tmp_path, "train_b6", Shape(), num_utterances=3)
    path = tmp_path / "train_b6.json"
    record = json.loads(path.read_text())
    first = next(iter(record[section]))
    if section == "gradnorm":  # whole gradients, where there are some, say more than their norms
        weights = load_file(path.with_suffix(".safetensors"))
        save_file({k: v for k, v in weights.items() if not k.startswith("grad.")}, path.with_suffix(".safetensors"))
        assert oracle.main(["lnln", str(tmp_path)]) == 0
    record[section][first] *= 1.01
    path.write_text(json.dumps(record))
    assert oracle.main(["lnln", str(tmp_path)]) == 1


def test_metrics_that_differ_are_found(tmp_path: Path) -> None:
    case = {"dataset": "SIMS", "case": "a", "preds": [0.5, -0.5], "labels": [0.5, 0.5], "result": {"Mult_acc_2": 0.5}}
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps([case]))
    assert oracle.main(["metrics", str(path)]) == 0
    path.write_text(json.dumps([case | {"result": {"Mult_acc_2": 0.6}}]))
    assert oracle.main(["metrics", str(path)]) == 1


def test_wrong_calls_exit_with_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["mmsa", str(tmp_path)], ["lnln"], ["sdumc"]):
        with pytest.raises(SystemExit) as stopped:
            oracle.main(arguments)
        assert stopped.value.code == 2
    (tmp_path / "broken.json").write_text("{")
    for arguments in (
        ["lnln", str(tmp_path / "nowhere")],
        ["lnln", str(tmp_path)],
        ["sdumc", str(tmp_path / "nowhere")],
        ["sdumc", str(tmp_path)],
        ["metrics", str(tmp_path / "nowhere.json")],
        ["metrics", str(tmp_path / "broken.json")],
    ):
        assert oracle.main(arguments) == 2
    write_case(tmp_path / "no_weights", "train_b1", Shape(), num_utterances=1, with_weights=False)
    capsys.readouterr()
    assert oracle.main(["lnln", str(tmp_path / "no_weights")]) == 2
    captured = capsys.readouterr()
    assert "train_b1 has no weights" in captured.err and len(captured.err.splitlines()) == 1


SDUMC_SIZES = {
    "small": plain_sdumc.Sizes(),
    "odd": plain_sdumc.Sizes(audio=1, text=3, vision=2, model=5, query=3, rank=7),
    "narrow": plain_sdumc.Sizes(audio=1, text=1, vision=1, model=4, query=4, rank=1),
}


@pytest.mark.parametrize("imagination", [True, False])
@pytest.mark.parametrize("name", SDUMC_SIZES)
def test_other_sizes_of_sdumc(name: str, imagination: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain_sdumc.write_case(tmp_path, "four", SDUMC_SIZES[name], imagination=imagination)
    plain_sdumc.write_case(tmp_path, "one", SDUMC_SIZES[name], imagination=imagination, num_utterances=1)
    plain_sdumc.write_case(
        tmp_path, "short", SDUMC_SIZES[name], imagination=imagination, lengths=(1, 1, 1, 1), num_utterances=13
    )
    assert oracle.main(["sdumc", str(tmp_path)]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("weights", [{"rnc": 0.0}, {"fused": 0.0, "text_hidden": 0.0}, {"sentiment_full": 2.0}])
def test_other_loss_weights_of_sdumc(
    weights: dict[str, float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain_sdumc.write_case(tmp_path, "case", plain_sdumc.Sizes(), imagination=True, weights=weights)
    assert oracle.main(["sdumc", str(tmp_path)]) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    "changed",
    ["out.missing.fused", "out.full.rnc_feature", "grad.fc_att.bias", "sd.fc_out_v.bias", "in.text_simulated"],
)
def test_a_changed_number_of_sdumc_is_found(changed: str, tmp_path: Path) -> None:
    plain_sdumc.write_case(tmp_path, "case", plain_sdumc.Sizes(), imagination=True)
    numbers = load_file(tmp_path / "case.safetensors")
    numbers[changed] = numbers[changed] + 1e-2
    save_file(numbers, tmp_path / "case.safetensors")
    assert oracle.main(["sdumc", str(tmp_path)]) == 1


def test_a_changed_record_of_sdumc_is_found(tmp_path: Path) -> None:
    plain_sdumc.write_case(tmp_path, "case", plain_sdumc.Sizes(), imagination=False)
    record = json.loads((tmp_path / "case.json").read_text())
    for change in (
        {"total": record["total"] + 1e-3},
        {"losses": {**record["losses"], "rnc": record["losses"]["rnc"] + 1e-3}},
        {"losses": {"other": 1.0}},
    ):
        rewrite(tmp_path / "case", (), **{**record, **change})
        assert oracle.main(["sdumc", str(tmp_path)]) == 1
    rewrite(tmp_path / "case", (), **record)
    rewrite(tmp_path / "case", ("in.label", "grad."), losses=None, total=None)
    assert oracle.main(["sdumc", str(tmp_path)]) == 0, "what is not there is not asked for"


@pytest.mark.parametrize(
    ("drop", "record", "said"),
    [
        (("in.text_simulated",), {}, "has no in.text_simulated"),
        (("in.label",), {}, "has no in.label"),
        (("sd.fc_out_v.bias",), {}, "missing .*sentiment_head.bias"),
        (("sd.frame_dim_reshape_0",), {}, "has a weight called 'frame_dim_reshape_0"),
        ((), {"weights": {"fused": 1.0}}, "does not state weights.sentiment_full"),
    ],
)
def test_cases_of_sdumc_that_cannot_be_checked_are_refused_by_one_line(
    drop: tuple[str, ...], record: dict[str, object], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain_sdumc.write_case(tmp_path, "case", plain_sdumc.Sizes(), imagination=True)
    rewrite(tmp_path / "case", drop, **record)
    capsys.readouterr()
    assert oracle.main(["sdumc", str(tmp_path)]) == 2
    captured = capsys.readouterr().err
    assert re.search(said, captured) and len(captured.splitlines()) == 1
