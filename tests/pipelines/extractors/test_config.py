"""What an extraction can be told: names, knobs and files; all of it refused in one line where it is wrong."""

from __future__ import annotations

import pickle
import re
from importlib import resources
from pathlib import Path

import pytest

from lnln.errors import RefusedError
from pipelines.extractors import choose, names
from pipelines.extractors.config import ClipConfig, ExtractConfig, extract_config_names, load_extract_config


def test_the_default_needs_nothing_but_packages() -> None:
    config = load_extract_config()
    assert {modality: chosen.name for modality, chosen in config.extractors().items()} == {
        "text": "wordpiece",
        "audio": "librosa_sims",
        "vision": "face",
    }
    assert config.clips == ClipConfig()


@pytest.mark.parametrize("name", [None, *extract_config_names()])
def test_a_config_survives_json_and_pickle(name: str | None) -> None:
    config = load_extract_config(name)
    assert ExtractConfig.from_values(config.to_dict()) == config
    assert pickle.loads(pickle.dumps(config)) == config
    assert config.to_dict() == load_extract_config(name).to_dict()


def test_every_extractor_has_defaults_and_says_its_packages() -> None:
    for modality in ("text", "audio", "vision"):
        for name in names(modality):
            chosen = choose(modality, name)
            assert chosen.module.VERSION >= 1 and isinstance(chosen.module.PACKAGES, tuple)
            assert pickle.loads(pickle.dumps(chosen)) == chosen


def test_overrides() -> None:
    config = load_extract_config(None, ["audio.name=none", "clips.max_seconds=5", "clips.align=words"])
    assert config.audio.name == "none" and config.clips == ClipConfig("words", 5.0)


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("audio.name=nothing", "no extractor of audio is called 'nothing'; there are .*librosa_sims"),
        ("audio.num_mfc=13", "unknown config key 'audio.num_mfc'; did you mean 'num_mfcc'"),
        ("sound.name=none", "unknown section 'sound'"),
        ("audio=none", "section audio must be a name and its knobs, got 'none'"),
        ("clips=none", "section clips must be keys and values"),
        ("clips.max_seconds=0", "clips.max_seconds must be above 0, got 0"),
        ("clips.align=letters", "config key clips.align must be one of none, words, got 'letters'"),
        ("clips.label_range=[1, -1]", r"clips.label_range must be \[-3, 3\] or \[-1, 1\], .* got \[1.0, -1.0\]"),
        ("clips.label_range=[0, 5]", r"got \[0.0, 5.0\]; bring the labels to one of them"),
        ("clips.label_range=1", r"clips.label_range must be \[-3, 3\]"),
        ("clips.label_range=-3,3", r"clips.label_range must be a list such as \[-3, 3\], got '-3,3'"),
        ("clips.timeout_seconds=0", "clips.timeout_seconds must be above 0, got 0"),
        ("nonsense", "--set takes key=value such as vision.rate_hz=5, got 'nonsense'"),
    ],
)
def test_what_cannot_be_is_refused(override: str, reason: str) -> None:
    with pytest.raises(RefusedError, match=reason):
        load_extract_config(None, [override])


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("vision:\n  name: none\nclips:\n  label_range: [-1, 1]\n")
    config = load_extract_config(str(path))
    assert config.vision.name == "none" and config.clips.label_range == (-1.0, 1.0)
    with pytest.raises(RefusedError, match=r"no config called 'sim'; there are .*sims"):
        load_extract_config("sim")


def test_the_configs_say_what_they_need() -> None:
    assert extract_config_names() == ["sdumc", "sims"]
    for name in extract_config_names():
        text = (resources.files("pipelines.extractors") / f"{name}.yaml").read_text()
        header = " ".join(re.findall(r"^#(.*)$", text, re.MULTILINE))
        for part in (f"--config {name}", "Needs: `pip install 'lnln[media]'`", "Licences: "):
            assert part in header
        assert all(len(line) <= 120 for line in text.splitlines())


def test_the_widths_that_the_headers_state() -> None:
    audio = load_extract_config("sims").audio.make()
    assert len(audio.columns) == 33
    assert len(load_extract_config("sims").vision.module.COLUMNS) == 709
