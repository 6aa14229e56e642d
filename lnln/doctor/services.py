"""Dask, Ray and Prefect where an address is configured: do they answer, and in versions that fit this environment?"""

from __future__ import annotations

import base64
import json
import os
import platform
import socket
import urllib.error
import urllib.request
from collections.abc import Mapping
from importlib import metadata
from typing import Any
from urllib.parse import urlsplit

from lnln.doctor.child import NoAnswerError, ask
from lnln.doctor.finding import Finding, without_password, wrong

KNOCK_SECONDS = 5.0
# Of a Dask cluster: what pickles and sends jobs, and what the jobs compute with.
DASK_PACKAGES = ("python", "distributed", "dask", "cloudpickle", "msgpack", "lnln", "numpy", "pyarrow")
_INSTALL = "install the same on both with constraints.txt: pip install -c constraints.txt ."


def dask() -> list[Finding]:
    """By the rule of `pipelines/settings.py`: LNLN_DASK first, where `none` and `local` are no addresses."""
    variable = "LNLN_DASK" if os.environ.get("LNLN_DASK") else "DASK_SCHEDULER_ADDRESS"
    chosen = os.environ.get(variable)
    if not chosen:
        return [Finding("Dask", "fine", "no address configured: jobs run on this machine")]
    if chosen == "none":
        return [Finding("Dask", "fine", "jobs run in the process that starts them")]
    if chosen == "local":
        return [Finding("Dask", "fine", "jobs run on a cluster that is started on this machine")]
    address = without_password(chosen)
    try:
        _knock(chosen)
        found = ask("lnln.doctor.ask_dask", chosen)
    except (OSError, ValueError, NoAnswerError) as error:
        reason = error.reason if isinstance(error, NoAnswerError) else str(error)
        mend = f"start one (dask scheduler), or set {variable}; LNLN_DASK=none works without"
        if chosen.startswith("tls://"):
            mend += "; tls:// needs DASK_DISTRIBUTED__COMM__TLS__CA_FILE and the client's certificate and key"
        return [
            wrong("Dask", f"{address} does not answer ({reason})", expected="a Dask scheduler there", mend=mend),
        ]
    here = {"python": platform.python_version(), **_installed(DASK_PACKAGES[1:])}
    differing = {"the scheduler": _differences(here, found["scheduler"])}
    differing |= {f"worker {name}": _differences(here, versions) for name, versions in found["workers"].items()}
    findings = []
    for text, names in _grouped(differing).items():
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        findings.append(wrong("Dask", f"{text[1]} on {shown}", expected=f"{text[0]} as here", mend=_INSTALL))
    if not findings:
        size = f"{len(found['workers'])} workers, {found['num_threads']} threads"
        findings.append(Finding("Dask", "fine", f"{address} answers: distributed {here['distributed']}, {size}"))
    if not found["workers"]:
        findings.append(Finding("Dask", "note", f"{address} has no workers; jobs wait for one: dask worker {address}"))
    return findings


def ray(num_gpus_wanted: float = 0, why: str = "") -> list[Finding]:
    """num_gpus_wanted, why: as of `machine.gpus`, since the cluster's count where there is one."""
    chosen = os.environ.get("RAY_ADDRESS")
    if not chosen:
        return [Finding("Ray", "fine", "no address configured: Ray is started on this machine for each run")]
    if chosen == "local":
        return [Finding("Ray", "fine", "address 'local': Ray is started on this machine for each run")]
    address = without_password(chosen)
    try:
        if chosen != "auto":
            _knock(chosen)
        found = ask("lnln.doctor.ask_ray", chosen)
    except (OSError, ValueError, NoAnswerError) as error:
        return [_no_ray(address, error)]
    here, there = metadata.version("ray"), found["ray"]
    python = platform.python_version()
    if (here, python) != (there, found["python"]):
        text = f"Ray {there} with Python {found['python']} at {address}"
        return [wrong("Ray", text, expected=f"Ray {here} with Python {python} as here", mend=_INSTALL)]
    size = f"{found['num_nodes']} nodes, {found['num_cpus']:g} CPUs, {found['num_gpus']:g} GPUs"
    findings = [Finding("Ray", "fine", f"{address} answers: Ray {there}, {size}")]
    if found["num_gpus"] < num_gpus_wanted:
        mend = "add a worker group with GPUs, or raise its maxReplicas (infra/kubernetes), or train without"
        text = f"{found['num_gpus']:g} in the Ray cluster at {address}"
        findings.append(wrong("GPU", text, expected=f"{num_gpus_wanted:g} for {why}", mend=mend))
    return findings


def _no_ray(address: str, error: Exception) -> Finding:
    reason, kind = (error.reason, error.kind) if isinstance(error, NoAnswerError) else (str(error), "")
    if kind == "credentials":
        mend = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) as its head has them"
        return wrong("Ray", f"{address} does not let us in", expected="the token of the cluster", mend=mend)
    if kind == "version":
        return wrong("Ray", reason, expected=f"Ray {metadata.version('ray')} as here", mend=_INSTALL)
    mend = "start it (ray start --head), or set RAY_ADDRESS; unset it to train on this machine"
    return wrong("Ray", f"{address} does not answer ({reason})", expected="the head of a Ray cluster there", mend=mend)


def prefect() -> list[Finding]:
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        return [Finding("Prefect", "fine", "no API configured: flows start their own")]
    address, here = without_password(url), metadata.version("prefect")
    expected = f"the API of a Prefect {here} server there"
    try:
        there = _prefect_json(url, "admin/version")
        pools = _prefect_json(url, "work_pools/filter", body={})
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            mend = "set PREFECT_API_AUTH_STRING as the server has it"
            return [wrong("Prefect", f"{address} answers {error.code}", expected="the right to ask it", mend=mend)]
        mend = f"PREFECT_API_URL ends with /api: http://host:4200/api, not {address}"
        return [wrong("Prefect", f"{address} answers {error.code}, it is no Prefect API", expected=expected, mend=mend)]
    except (OSError, ValueError, RecursionError) as error:
        mend = "start it (prefect server start), or set PREFECT_API_URL to where it is, ending with /api"
        return [wrong("Prefect", f"{address} does not answer ({error})", expected=expected, mend=mend)]
    if not isinstance(there, str) or not isinstance(pools, list):
        mend = "PREFECT_API_URL ends with /api: http://host:4200/api"
        return [wrong("Prefect", f"{address} is no Prefect API", expected=expected, mend=mend)]
    if there.split(".")[:2] != here.split(".")[:2]:
        mend = f"one of both: pip install -c constraints.txt . there, or pip install prefect=={there} here"
        return [wrong("Prefect", f"Prefect {there} at {address}", expected=f"Prefect {here} as here", mend=mend)]
    findings = [Finding("Prefect", "fine", f"{address} answers: Prefect {there}, {len(pools)} work pools")]
    if idle := sorted(str(pool["name"]) for pool in pools if pool.get("status") == "NOT_READY"):
        mend = f"prefect worker start --pool {idle[0]}"
        findings.append(Finding("Prefect", "note", f"no worker is online for {', '.join(idle)}; runs wait: {mend}"))
    return findings


def _prefect_json(url: str, path: str, body: Any = None) -> Any:
    """What the API answers to GET, or to POST where there is a body; with the password that Prefect's client sends."""
    headers = {"Content-Type": "application/json"}
    if secret := os.environ.get("PREFECT_API_AUTH_STRING"):
        headers["Authorization"] = f"Basic {base64.b64encode(secret.encode()).decode()}"
    elif key := os.environ.get("PREFECT_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError("it is no http:// address")
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{url.rstrip('/')}/{path}", data, headers)
    with urllib.request.urlopen(request, timeout=KNOCK_SECONDS) as reply:
        return json.loads(reply.read(1 << 20))


def _knock(address: str) -> None:
    """OSError or ValueError where nothing listens at `address`: client libraries would try for minutes."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=KNOCK_SECONDS):
        return


def _installed(names: tuple[str, ...]) -> dict[str, str]:
    return {name: metadata.version(name) for name in names}


def _differences(here: Mapping[str, str], there: Mapping[str, str]) -> tuple[str, str]:
    """What is here and what is there, where that differs; of what neither has, nothing."""
    names = [name for name in here if there.get(name) != here[name]]
    mine = ", ".join(f"{name} {here[name]}" for name in names)
    return mine, ", ".join(f"{name} {there[name]}" if name in there else f"no {name}" for name in names)


def _grouped(differing: Mapping[str, tuple[str, str]]) -> dict[tuple[str, str], list[str]]:
    groups: dict[tuple[str, str], list[str]] = {}
    for name, difference in differing.items():
        if difference[0]:
            groups.setdefault(difference, []).append(name)
    return groups
