"""The images: pinned, without root, the same packages for all, and nothing in them that does not belong there."""

from __future__ import annotations

import fnmatch
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.infra.known_variables import is_known

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "infra" / "images"
CONTAINERFILES = sorted(path for path in IMAGES.glob("Containerfile*") if path.suffix != ".dockerignore")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def instructions(path: Path) -> list[tuple[str, str]]:
    """Verb and rest of each instruction; lines that go on are joined, comments left out."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [(verb, rest.strip()) for verb, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def of(path: Path, verb: str) -> list[str]:
    return [rest for found, rest in instructions(path) if found == verb]


def copied(path: Path) -> list[str]:
    """What comes from the checkout."""
    return [name for rest in of(path, "COPY") if "--from" not in rest for name in shlex.split(rest)[:-1]]


def test_there_is_one_for_cpus_and_one_for_gpus_and_they_differ_in_torch_alone() -> None:
    cpu, cuda = CONTAINERFILES
    assert (cpu.name, cuda.name) == ("Containerfile", "Containerfile.cuda")
    differing = [(a, b) for a, b in zip(instructions(cpu), instructions(cuda), strict=True) if a != b]
    assert [(a[0], a[1].split("=")[0]) for a, _ in differing] == [("ARG", "TORCH_INDEX")]
    assert "cpu" in differing[0][0][1] and "cpu" not in differing[0][1][1]
    assert "--index-url ${TORCH_INDEX} torch==2.13.0" in cpu.read_text()


@pytest.mark.parametrize("path", CONTAINERFILES, ids=lambda path: path.name)
def test_bases_are_pinned_and_their_python_is_ours(path: Path) -> None:
    for base in of(path, "FROM"):
        name, _, tag = base.split()[0].partition(":")
        assert name == "python" and re.fullmatch(r"\d+\.\d+\.\d+-slim-\w+", tag), base
        assert tag.startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    assert not of(path, "ADD"), "ADD fetches and unpacks what it is given"


@pytest.mark.parametrize("path", CONTAINERFILES, ids=lambda path: path.name)
def test_every_install_is_held_by_the_constraints(path: Path) -> None:
    installs = [rest for rest in of(path, "RUN") if re.search(r"\bpip install\b", rest)]
    assert len(installs) == 2 and all("-c constraints.txt" in rest for rest in installs)
    assert "torch==" in installs[0], "torch first"
    assert not re.search(r"curl|wget .*http|sudo|chmod 777|--trusted-host|--no-check-certificate", path.read_text())
    extras = re.search(r"'\.\[([\w,]+)\]'", installs[1])
    assert extras and set(extras[1].split(",")) <= set(PROJECT["project"]["optional-dependencies"])
    assert "cluster" in extras[1].split(","), "Ray's dashboard, which takes jobs"


@pytest.mark.parametrize("path", CONTAINERFILES, ids=lambda path: path.name)
def test_what_runs_is_not_root_and_has_a_number(path: Path) -> None:
    """A name would not be enough for `runAsNonRoot`."""
    user = of(path, "USER")[-1]
    assert re.fullmatch(r"[1-9]\d{4,}:[1-9]\d{4,}", user)
    last = [verb for verb, _ in instructions(path)]
    assert "RUN" not in last[last.index("USER") :] and "COPY" not in last[last.index("USER") :]


@pytest.mark.parametrize("path", CONTAINERFILES, ids=lambda path: path.name)
def test_all_of_the_package_is_copied_and_no_more(path: Path) -> None:
    names = copied(path)
    assert all((ROOT / name).exists() for name in names)
    packages = {name.split(".")[0] for name in PROJECT["tool"]["setuptools"]["packages"]}
    project = {"pyproject.toml", PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]}
    assert set(names) == packages | project | {"constraints.txt", "prefect.yaml"}


@pytest.mark.parametrize("path", CONTAINERFILES, ids=lambda path: path.name)
def test_only_what_is_copied_reaches_the_builder(path: Path) -> None:
    lines = (IMAGES / f"{path.name}.dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    assert let_in == set(copied(path))
    for secret in (".env", "cluster.env", ".aws/credentials", "store/x", ".git/config", "results-store/x", "id_rsa"):
        assert not any(fnmatch.fnmatch(secret.split("/")[0], name) for name in let_in)


@pytest.mark.parametrize("path", CONTAINERFILES, ids=lambda path: path.name)
def test_variables_are_known_and_none_is_a_secret(path: Path) -> None:
    pairs = [word for rest in of(path, "ENV") for word in shlex.split(rest)]
    for name, value in (pair.split("=", 1) for pair in pairs):
        assert is_known(name) or name.startswith("PIP_"), name
        assert not re.search(r"KEY|TOKEN|PASSWORD|SECRET", name) and value
    assert [rest.split("=")[0] for rest in of(path, "ARG")] == ["TORCH_INDEX"]


@pytest.mark.parametrize("path", CONTAINERFILES, ids=lambda path: path.name)
def test_what_charts_and_operators_start_is_there(path: Path) -> None:
    """Prefect's chart starts its worker by tini and /opt/prefect/entrypoint.sh; KubeRay's probes call wget."""
    packages = next(rest for rest in of(path, "RUN") if "apt-get install" in rest)
    assert " tini " in packages and " wget " in packages and "--no-install-recommends" in packages
    script = re.search(r"printf '([^']*)' > /opt/prefect/entrypoint.sh", packages)
    assert script
    source = script[1].replace("\\n", "\n")
    done = subprocess.run(["sh", "-c", source, "entrypoint", "echo", "a b", "c"], capture_output=True, text=True)
    assert done.stdout == "a b c\n"


@pytest.mark.slow
def test_the_package_has_all_its_files_when_it_is_installed_from_what_is_copied(tmp_path: Path) -> None:
    """The wheel that the image installs: every module and every file that modules read."""
    import shutil
    import zipfile

    for name in copied(CONTAINERFILES[0]):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / name)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path / "wheel"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    if "setuptools" in done.stderr and done.returncode:
        pytest.skip(f"no build backend here: {done.stderr[-200:]}")
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "wheel").glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "lnln", "pipelines", "tuning"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    ).stdout.split()
    assert {name for name in tracked if (ROOT / name).exists()} <= inside
