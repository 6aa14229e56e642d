"""What the documentation says can be typed: every verb and option it names exists, every link leads somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from lnln.cli import app
from lnln.config import config_names, load_config
from lnln.data.schema import MODALITIES
from pipelines.extractors import load as load_extractor
from pipelines.extractors import names as extractor_names
from pipelines.extractors.config import DEFAULT_EXTRACTORS, extract_config_names, load_extract_config
from pipelines.simulators import DEFAULT_PROVIDER, load_provider

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "infra").glob("*.md"))]
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
OPTIONS_OF_ALL = {"--store", "--json", "--quiet", "--version", "--help", "-h"}


def commands_in(text: str) -> list[list[str]]:
    """Each `lnln ...` of a code block or of inline code, as words; comments and what follows a pipe are left out."""
    blocks = re.findall(r"^(?:    |\t)(lnln .*)$", text, re.M) + re.findall(r"`(lnln [^`]*)`", text)
    return [shlex.split(line.split("  #")[0].split(" && ")[0].replace("<", "").replace(">", "")) for line in blocks]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_real(page: Path) -> None:
    for words in commands_in(page.read_text()):
        verb = next((word for word in words[1:] if not word.startswith("-")), None)
        known = set(OPTIONS_OF_ALL)
        if verb is not None:
            assert verb in COMMANDS, f"{page.name}: there is no verb in {words}"
            known |= {option for parameter in COMMANDS[verb].params for option in parameter.opts}
        for word in words[1:]:
            if word.startswith("--"):
                assert word.split("=")[0] in known, f"{page.name}: {verb} has no option {word}"
        load, names = (load_extract_config, extract_config_names) if verb == "extract" else (load_config, config_names)
        knobs = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
        if verb == "simulate":
            load_provider(words[words.index("--provider") + 1] if "--provider" in words else DEFAULT_PROVIDER, knobs)
        elif knobs:
            load(None, knobs)
        if "--config" in words:
            assert words[words.index("--config") + 1] in (*names(), "mine.yaml", "extraction.yaml")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_config_keys_are_real(page: Path) -> None:
    known = {section: set(values) for section, values in load_config().to_dict().items()}
    for section, key in re.findall(r"`(corruption|model|loss|train|tune)\.(\w+)", page.read_text()):
        assert key in known[section], f"{page.name}: there is no config key {section}.{key}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_page_of_extraction_has_every_extractor_its_columns_and_its_rate() -> None:
    rows = re.findall(
        r"^\| ([a-z, ]+) \| `(\w+)`( \(default\))? \|([^|]*)\|([^|]*)\|",
        (ROOT / "docs" / "extraction.md").read_text(),
        re.M,
    )
    told = {(m, name): row for modality, name, *row in rows for m in modality.split(", ")}
    assert set(told) == {(m, name) for m in MODALITIES for name in extractor_names(m)}
    assert {m: name for (m, name), (default, *_) in told.items() if default} == dict(DEFAULT_EXTRACTORS)
    for modality, name in [("audio", "librosa_sims"), ("audio", "egemaps"), ("vision", "face")]:
        made = load_extractor(modality, name)  # type: ignore[arg-type]
        _, columns, rate = told[modality, name]
        assert (int(columns), int(rate)) == (len(made.columns), round(made.rate_hz))


def test_the_readme_names_every_stage() -> None:
    named = {words[1] for words in commands_in((ROOT / "README.md").read_text()) if len(words) > 1}
    assert {
        "import",
        "extract",
        "corrupt",
        "train",
        "tune",
        "evaluate",
        "publish",
        "pull",
        "predict",
        "report",
    } <= named


def test_every_setting_of_the_cluster_file_is_explained() -> None:
    explained = (ROOT / "infra" / "README.md").read_text()
    for line in (ROOT / "infra" / "cluster.env.example").read_text().splitlines():
        if line and not line.startswith("#"):
            assert line.split("=")[0] in explained
