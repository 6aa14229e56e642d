"""The manifests of a cluster: what a server would refuse, what would not start, and what nobody would read."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import typer
import yaml

from lnln import __version__
from lnln.cli import app
from lnln.config import config_names, load_config
from tests.infra.known_variables import is_known
from tests.infra.rendered import KUBERNETES, KUSTOMIZATIONS, Object, containers_in, documents, pod_specs_in, rendered

ROOT = Path(__file__).parents[2]
SCHEMAS = Path(__file__).parent / "schemas"
HELM = sorted((KUBERNETES / "helm").glob("*.yaml"))
FILES = sorted(path for path in KUBERNETES.rglob("*") if path.is_file())
KUBERNETES_VERSION = "1.34"
OURS = "registry.example.org/lnln"

OBJECTS: list[Any] = [
    pytest.param(each, id=f"{folder.relative_to(KUBERNETES)}:{each['kind']}/{each['metadata']['name']}")
    for folder in KUSTOMIZATIONS
    for each in rendered(folder)
]


def all_containers() -> list[tuple[str, Object]]:
    of_objects = [(str(param.id), each) for param in OBJECTS for each in containers_in(param.values[0])]
    worker = yaml.safe_load((KUBERNETES / "helm" / "prefect-worker.yaml").read_text())["worker"]
    return [*of_objects, *(("prefect-worker", each) for each in worker["extraContainers"])]


CONTAINERS = [pytest.param(each, id=f"{name}:{each['name']}") for name, each in all_containers()]


def test_every_file_is_yaml_and_belongs_to_something() -> None:
    used = set(HELM)
    for kustomization in KUBERNETES.rglob("kustomization.yaml"):
        content = yaml.safe_load(kustomization.read_text())
        used |= {kustomization, *(kustomization.parent / name for name in content["resources"])}
        used |= {kustomization.parent / patch["path"] for patch in content.get("patches", []) if "path" in patch}
    for path in FILES:
        assert documents(path), f"{path} holds nothing"
        assert path in used, f"nobody names {path}"


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl here")
@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=lambda folder: str(folder.relative_to(KUBERNETES)))
def test_kustomize_makes_what_is_tested_here(folder: Path) -> None:
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True)
    if "unknown field" in done.stderr:
        pytest.skip("this kubectl has an older kustomize")
    assert done.returncode == 0, done.stderr
    theirs = {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(done.stdout)}
    assert {(each["kind"], each["metadata"]["name"]): each for each in rendered(folder)} == theirs


@pytest.mark.parametrize("each", OBJECTS)
def test_objects_fit_their_schemas(each: Object) -> None:
    if each["apiVersion"] == "ray.io/v1":
        jsonschema.validate(each, json.loads((SCHEMAS / "kuberay.json").read_text()))
        for spec in pod_specs_in(each):
            kubernetes_validate.validate(pod_of(spec), KUBERNETES_VERSION, strict=True)
    elif each["apiVersion"].startswith("kueue.x-k8s.io/"):
        jsonschema.validate(each, json.loads((SCHEMAS / "kueue.json").read_text()))
    else:
        kubernetes_validate.validate(each, KUBERNETES_VERSION, strict=True)


@pytest.mark.parametrize("misspelt", ["rayStartParam", "entryPoint", "submitterPodTemplates"])
def test_the_schemas_refuse_what_is_misspelt(misspelt: str) -> None:
    (job,) = [each for each in rendered(KUBERNETES / "overlays/small/jobs") if each["kind"] == "RayJob"]
    job["spec"][misspelt] = "x"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(job, json.loads((SCHEMAS / "kuberay.json").read_text()))
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pod_of({"containers": [], misspelt: 1}), KUBERNETES_VERSION, strict=True)


def pod_of(spec: Object) -> Object:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec}


@pytest.mark.parametrize("path", HELM, ids=lambda path: path.stem)
def test_helm_values_are_keys_of_the_charts(path: Path) -> None:
    check_values(yaml.safe_load(path.read_text()), json.loads((SCHEMAS / "prefect-helm.json").read_text())[path.stem])


def check_values(values: Object, keys: Object, where: str = "") -> None:
    types = {"string": str, "boolean": bool, "integer": int, "array": list, "object": dict}
    for key, value in values.items():
        assert key in keys, f"the chart has no {where}{key}"
        if isinstance(keys[key], dict):
            check_values(value, keys[key], f"{where}{key}.")
        else:
            assert isinstance(value, types[keys[key]]), f"{where}{key} is no {keys[key]}"


# What is started.


@cache
def help_of(*command: str) -> str:
    program = str(Path(sys.executable).with_name(command[0]))
    done = subprocess.run([program, *command[1:], "--help"], capture_output=True, text=True, env={"COLUMNS": "200"})
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


def check_options(words: list[str], of: str) -> None:
    for word in words:
        if word.startswith("--"):
            assert re.search(rf"{re.escape(word.split('=')[0])}\b", of), f"no option {word}"


def check_lnln(words: list[str]) -> None:
    """As `tests/test_docs.py` checks the commands of pages; besides that the config is one."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    known = {option for parameter in commands[words[1]].params for option in parameter.opts}
    assert all(word.split("=")[0] in known for word in words[2:] if word.startswith("--")), words
    load_config(
        words[2] if words[2] in config_names() else None, [words[i + 1] for i, w in enumerate(words) if w == "--set"]
    )


@pytest.mark.slow
@pytest.mark.parametrize("container", CONTAINERS)
def test_commands_exist(container: Object) -> None:
    if "command" not in container:  # Ray's pods: KubeRay makes `ray start` of rayStartParams
        return
    program, verb, *words = container["command"]
    assert program in ("dask", "ray"), container["command"]
    check_options(words, help_of(program, verb))


@pytest.mark.slow
def test_ray_start_and_prefects_worker_have_the_options_that_are_given_to_them() -> None:
    for param in OBJECTS:
        for group in groups_of(param.values[0]):
            check_options([f"--{name}" for name in group["rayStartParams"]], help_of("ray", "start"))
    worker = help_of("prefect", "worker", "start")  # as the chart's deployment starts it
    check_options(["--type", "--pool", "--install-policy", "--limit"], worker)


def groups_of(value: Any) -> list[Object]:
    if isinstance(value, list):
        return [group for each in value for group in groups_of(each)]
    if not isinstance(value, dict):
        return []
    return ([value] if "rayStartParams" in value else []) + [g for each in value.values() for g in groups_of(each)]


JOBS = [param for param in OBJECTS if param.values[0]["kind"] in ("RayJob", "RayCronJob")]


@pytest.mark.parametrize("each", JOBS)
def test_entrypoints_are_commands_of_ours(each: Object) -> None:
    job = each["spec"].get("jobTemplate", each["spec"])
    words = shlex.split(job["entrypoint"])
    assert words[0] == "lnln"
    check_lnln(words)
    places = [group["maxReplicas"] for group in job["rayClusterSpec"]["workerGroupSpecs"]]
    if "--workers" in words:
        assert int(words[words.index("--workers") + 1]) <= sum(places), "it would wait for ever"


def test_entrypoints_of_deployments_are_in_the_image() -> None:
    """The worker pulls no code: what prefect.yaml names has to be installed."""
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    for deployment in deployments:
        module, _, name = deployment["entrypoint"].rpartition(".")
        assert callable(getattr(import_module(module), name))
        assert module.split(".")[0] in ("pipelines", "lnln", "tuning")


def test_the_worker_serves_a_pool_that_deployments_use() -> None:
    worker = yaml.safe_load((KUBERNETES / "helm" / "prefect-worker.yaml").read_text())["worker"]
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert worker["config"]["workPool"] in {each["work_pool"]["name"] for each in deployments}


# What is read.


def variables() -> dict[str, set[str]]:
    """Where each variable is set, by name."""
    found: dict[str, set[str]] = {}

    def note(name: str, where: str) -> None:
        found.setdefault(name, set()).add(where)

    for param in OBJECTS:
        if param.values[0]["kind"] == "ConfigMap":
            for name in param.values[0]["data"]:
                note(name, str(param.id))
    for where, container in all_containers():
        for each in container.get("env", []):
            note(each["name"], where)
    for path in HELM:
        for content in yaml.safe_load(path.read_text()).values():
            for each in [*content.get("env", []), *content.get("extraEnvVars", [])]:
                note(each["name"], path.name)
    for line in (ROOT / "infra" / "cluster.env.example").read_text().splitlines():
        if line and not line.startswith("#"):
            note(line.split("=")[0], "cluster.env.example")
    return found


def test_every_variable_is_known_to_somebody() -> None:
    unknown = {name: sorted(where) for name, where in variables().items() if not is_known(name)}
    assert not unknown


@pytest.mark.parametrize("name", ["LNLN_STORES", "AWS_ENDPOINT", "RAY_AUTH_TOKENS", "PREFECT_URL", "DASK_ADDRESS", "X"])
def test_a_misspelt_variable_is_not_known(name: str) -> None:
    assert not is_known(name)


def test_names_that_one_file_gives_and_another_reads_are_the_same() -> None:
    objects = rendered(KUBERNETES / "overlays" / "small")
    names = {(each["kind"], each["metadata"]["name"]) for each in objects}
    (settings,) = [each["data"] for each in objects if each["kind"] == "ConfigMap"]
    scheduler = settings["DASK_SCHEDULER_ADDRESS"]
    assert ("Service", scheduler.split("/")[-1].split(":")[0]) in names
    (worker,) = [each for each in containers_in(objects) if each["name"] == "worker"]
    assert worker["command"][2] == scheduler
    helm = yaml.safe_load((KUBERNETES / "helm" / "prefect-worker.yaml").read_text())["worker"]
    assert helm["serverApiConfig"]["apiUrl"] == settings["PREFECT_API_URL"]
    # KubeRay's name for the service of a cluster's head.
    (address,) = [each["value"] for each in helm["extraEnvVars"] if each["name"] == "RAY_ADDRESS"]
    assert ("RayCluster", address.removesuffix("-head-svc:6379")) in names
    assert f"--address={address}" in helm["extraContainers"][0]["command"]
    assert "RAY_ADDRESS" not in settings, "Ray's own pods would join it"


def test_versions_are_those_of_the_constraints() -> None:
    for param in OBJECTS:
        for spec in clusters_of(param.values[0]):
            assert spec["rayVersion"] == metadata.version("ray")
    server = yaml.safe_load((KUBERNETES / "helm" / "prefect-server.yaml").read_text())["server"]["image"]
    assert server["prefectTag"].split("-")[0] == metadata.version("prefect")


def clusters_of(value: Any) -> list[Object]:
    if isinstance(value, list):
        return [spec for each in value for spec in clusters_of(each)]
    if not isinstance(value, dict):
        return []
    return ([value] if "headGroupSpec" in value else []) + [s for each in value.values() for s in clusters_of(each)]


# What is allowed.


@pytest.mark.parametrize("container", CONTAINERS)
def test_images_are_ours_by_a_tag_that_is_a_version(container: Object) -> None:
    name, _, tag = container["image"].partition(":")
    assert name == OURS and tag in (f"{__version__}-cpu", f"{__version__}-cuda")


@pytest.mark.parametrize("container", CONTAINERS)
def test_containers_say_what_they_need_and_may_no_more(container: Object) -> None:
    resources, security = container["resources"], container["securityContext"]
    assert {"cpu", "memory"} <= set(resources["requests"]) and "memory" in resources["limits"]
    assert security["allowPrivilegeEscalation"] is False and security["capabilities"]["drop"] == ["ALL"]
    assert not security.get("privileged") and "add" not in security["capabilities"]
    gpus = [part.get("nvidia.com/gpu") for part in (resources["requests"], resources["limits"])]
    assert gpus[0] == gpus[1], "GPUs are requested and limited alike"


@pytest.mark.parametrize("each", OBJECTS)
def test_pods_are_not_root_and_reach_no_host(each: Object) -> None:
    for spec in pod_specs_in(each):
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True and security["runAsUser"] >= 10000
        assert security["seccompProfile"]["type"] == "RuntimeDefault"
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert all(set(volume) - {"name"} == {"emptyDir"} for volume in spec["volumes"])
        head = spec["serviceAccountName"] == "lnln-ray-head"
        assert head or spec["automountServiceAccountToken"] is False


@pytest.mark.parametrize("each", OBJECTS)
def test_pods_with_gpus_go_to_nodes_that_have_them(each: Object) -> None:
    for spec in pod_specs_in(each):
        wants = any("nvidia.com/gpu" in container["resources"]["limits"] for container in spec["containers"])
        assert wants == ("nodeSelector" in spec) == ("tolerations" in spec)


def test_the_large_overlay_has_gpus_autoscaling_and_a_queue_and_the_small_one_none() -> None:
    small, large = (rendered(KUBERNETES / "overlays" / name) for name in ("small", "large"))
    (cluster,) = [each["spec"] for each in large if each["kind"] == "RayCluster"]
    gpu = [group for group in cluster["workerGroupSpecs"] if group["groupName"] == "gpu"]
    assert cluster["enableInTreeAutoscaling"] and gpu[0]["minReplicas"] == 0 < gpu[0]["maxReplicas"]
    assert "HorizontalPodAutoscaler" in {each["kind"] for each in large}
    assert "nvidia.com/gpu" not in json.dumps(small)
    jobs = rendered(KUBERNETES / "overlays" / "large" / "jobs")
    (job,) = [each for each in jobs if each["kind"] == "RayJob"]
    (queue,) = [each for each in jobs if each["kind"] == "LocalQueue"]
    # Kueue wants a cluster that goes with its job, and starts what is suspended.
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == queue["metadata"]["name"]
    assert job["spec"]["suspend"] is True and job["spec"]["shutdownAfterJobFinishes"] is True
    assert "clusterSelector" not in job["spec"]


@pytest.mark.parametrize("each", OBJECTS)
def test_every_ray_cluster_wants_a_token(each: Object) -> None:
    for spec in clusters_of(each):
        assert spec["authOptions"] == {"mode": "token", "secretName": "lnln-ray-token"}


SECRET_NAMES = re.compile(r"KEY|TOKEN|PASSWORD|SECRET|AUTH_STRING|CREDENTIAL", re.I)
# An AWS key, a private key, a JSON web token, and a password in an address.
SECRET_VALUES = re.compile(r"AKIA[0-9A-Z]{16}|-----BEGIN|eyJ[\w-]{10,}\.|://[^/\s:@]+:[^/\s@]+@")


@pytest.mark.parametrize("path", [*FILES, *sorted((ROOT / "infra").glob("*.example"))], ids=lambda path: path.name)
def test_no_file_holds_a_secret(path: Path) -> None:
    text = path.read_text()
    assert not SECRET_VALUES.search(text)
    for document in documents(path) if path.suffix == ".yaml" else []:
        assert not (isinstance(document, dict) and document.get("kind") == "Secret")
        for name, value in named_values(document):
            assert not (SECRET_NAMES.search(name) and value), f"{name} has a value in {path}"


def named_values(value: Any) -> list[tuple[str, str]]:
    """Names of variables with the values that stand beside them."""
    if isinstance(value, list):
        return [pair for each in value for pair in named_values(each)]
    if not isinstance(value, dict):
        return []
    own = [(str(value["name"]), str(value["value"]))] if {"name", "value"} <= set(value) else []
    own += [tuple(each.split("=", 1)) for each in value.get("literals", [])]
    own += [(key, value[key]) for key in ("authString", "password") if value.get(key)]
    return own + [pair for each in value.values() for pair in named_values(each)]
