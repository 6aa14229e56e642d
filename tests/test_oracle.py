from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests import oracle
from tests.lnln.models.plain_lnln import Shape, write_case

PUBLISHED = Path(__file__).resolve().parents[2] / "shared" / "oracle" / "lnln"
needs_published = pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published numbers are not beside this clone")

SHAPES = {
    "own_heads_and_depths": Shape(),
    "one_token": Shape(tokens=1, kept=1),
    "reads_into_its_input": Shape(tokens=2, kept=4),  # more tokens read than it has of its own
    "odd_heads": Shape(dim=15, hidden=4, head_dim=6, heads=dict.fromkeys(Shape().heads, 5), bert_dim=12, bert_heads=3),
}


@needs_published
def test_the_published_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert oracle.main(["lnln", str(PUBLISHED)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("EQUAL")


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
    for arguments in ([], ["sdumc", str(tmp_path)], ["lnln"]):
        with pytest.raises(SystemExit) as stopped:
            oracle.main(arguments)
        assert stopped.value.code == 2
    (tmp_path / "broken.json").write_text("{")
    for arguments in (
        ["lnln", str(tmp_path / "nowhere")],
        ["lnln", str(tmp_path)],
        ["metrics", str(tmp_path / "nowhere.json")],
        ["metrics", str(tmp_path / "broken.json")],
    ):
        assert oracle.main(arguments) == 2
    write_case(tmp_path / "no_weights", "train_b1", Shape(), num_utterances=1, with_weights=False)
    capsys.readouterr()
    assert oracle.main(["lnln", str(tmp_path / "no_weights")]) == 2
    captured = capsys.readouterr()
    assert "train_b1 has no weights" in captured.err and len(captured.err.splitlines()) == 1
