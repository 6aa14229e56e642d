"""What stays of one measured section: its seconds or bytes, and on what they were measured. No host name, no path."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.performance.measure import AnyComparison, Comparison, Peak, PeakComparison, Timing

PACKAGES = ("numpy", "pyarrow", "dask", "lnln")


@dataclass(frozen=True)
class Record:
    """shared: other work ran on the machine meanwhile. versions: of Python and PACKAGES. device: beside the CPU."""

    section: str
    date: str
    cpu: str
    num_cores: int
    shared: bool
    versions: dict[str, str]
    comparisons: list[AnyComparison]
    device: str = ""


def make_record(section: str, comparisons: Sequence[AnyComparison], *, shared: bool, device: str = "") -> Record:
    return Record(
        section=section,
        date=datetime.now(UTC).date().isoformat(),
        cpu=_cpu_model(),
        num_cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        shared=shared,
        versions={"python": platform.python_version(), **{package: version(package) for package in PACKAGES}},
        comparisons=list(comparisons),
        device=device,
    )


def record_path(folder: Path, section: str) -> Path:
    return folder / f"{section}.json"


def write_record(folder: Path, record: Record) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_rounded(asdict(record)), indent=1, ensure_ascii=False)
    record_path(folder, record.section).write_text(text + "\n", encoding="utf-8")


def read_record(folder: Path, section: str) -> Record | None:
    """None where the section was never measured."""
    path = record_path(folder, section)
    if not path.exists():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    return Record(**{**content, "comparisons": [_comparison(each) for each in content["comparisons"]]})


def _comparison(content: dict[str, Any]) -> AnyComparison:
    """Of memory where no clock is named."""
    kind, figures = (Comparison, Timing) if "clock" in content else (PeakComparison, Peak)
    both = {"ours": figures(**content["ours"]), "baselines": [figures(**each) for each in content["baselines"]]}
    found: AnyComparison = kind(**{**content, **both})
    return found


def _rounded(value: Any) -> Any:
    """Six significant digits of every number: a clock says no more."""
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or "unknown CPU"
