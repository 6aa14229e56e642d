"""What `kubectl apply -k` would send, as far as our kustomizations go: resources, a namespace, labels, settings, JSON
patches and images, in kustomize's order. Where kubectl is installed, `test_manifests.py` compares the two.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import jsonpatch
import yaml

KUBERNETES = Path(__file__).parents[2] / "infra" / "kubernetes"
KUSTOMIZATIONS = [KUBERNETES / "overlays" / name for name in ("small", "small/jobs", "large", "large/jobs")]
_KNOWN = {
    "apiVersion",
    "kind",
    "namespace",
    "resources",
    "labels",
    "configMapGenerator",
    "generatorOptions",
    "images",
    "patches",
}
_CLUSTER_WIDE = {"Namespace"}
_TEMPLATES = ("template", "jobTemplate")

Object = dict[str, Any]


def rendered(folder: Path) -> list[Object]:
    """Every object of the kustomization in `folder`."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert set(kustomization) <= _KNOWN, f"{folder}: {sorted(set(kustomization) - _KNOWN)} are not rendered here"
    objects: list[Object] = []
    for resource in kustomization["resources"]:
        path = folder / resource
        objects += rendered(path) if path.is_dir() else documents(path)
    for generator in kustomization.get("configMapGenerator", []):
        assert kustomization["generatorOptions"]["disableNameSuffixHash"]
        data = dict(literal.split("=", 1) for literal in generator["literals"])
        objects.append({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": generator["name"]},
            "data": data,
        })  # fmt: skip
    for patch in kustomization.get("patches", []):
        _patch(objects, patch, folder)
    if namespace := kustomization.get("namespace"):
        for each in objects:
            if each["kind"] not in _CLUSTER_WIDE:
                each["metadata"]["namespace"] = namespace
    for labels in kustomization.get("labels", []):
        for each in objects:
            each["metadata"].setdefault("labels", {}).update(labels["pairs"])
            if each["kind"] == "Deployment":  # kustomize knows no templates of custom resources
                each["spec"]["template"]["metadata"].setdefault("labels", {}).update(labels["pairs"])
    for each in objects:
        for container in containers_in(each):
            _name_image(container, kustomization.get("images", []))
    return objects


def documents(path: Path) -> list[Object]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document is not None]


def containers_in(value: Any) -> list[Object]:
    """Every container below `value`."""
    if isinstance(value, list):
        return [container for each in value for container in containers_in(each)]
    if not isinstance(value, dict):
        return []
    own = [each for key in ("containers", "initContainers") for each in value.get(key, [])]
    return own + [container for each in value.values() for container in containers_in(each) if container not in own]


def pod_specs_in(value: Any) -> list[Object]:
    """Every pod's spec below `value`."""
    if isinstance(value, list):
        return [spec for each in value for spec in pod_specs_in(each)]
    if not isinstance(value, dict):
        return []
    return [value] if "containers" in value else [spec for each in value.values() for spec in pod_specs_in(each)]


def _patch(objects: list[Object], patch: Object, folder: Path) -> None:
    operations = yaml.safe_load((folder / patch["path"]).read_text() if "path" in patch else patch["patch"])
    target = patch["target"]
    hit = [
        index
        for index, each in enumerate(objects)
        if each["kind"] == target["kind"] and target.get("name", each["metadata"]["name"]) == each["metadata"]["name"]
    ]
    assert hit, f"{folder}: a patch meets nothing: {target}"
    for index in hit:
        objects[index] = jsonpatch.apply_patch(objects[index], copy.deepcopy(operations))


def _name_image(container: Object, images: list[Object]) -> None:
    name, _, tag = container["image"].partition(":")
    for image in images:
        if name == image["name"]:
            container["image"] = f"{image.get('newName', name)}:{image.get('newTag', tag)}"
            return
