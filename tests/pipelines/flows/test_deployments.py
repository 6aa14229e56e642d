"""`prefect.yaml`: every deployment can be loaded, as `prefect deploy` loads it, and fits its flow."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.cli.deploy._models import PrefectYamlModel
from prefect.client.schemas.objects import ConcurrencyLimitStrategy
from prefect.flows import Flow, load_flow_from_entrypoint

DOCUMENT: dict[str, Any] = yaml.safe_load((Path(__file__).parents[3] / "prefect.yaml").read_text(encoding="utf-8"))
DEPLOYMENTS: list[dict[str, Any]] = DOCUMENT["deployments"]


# The one deployment that is called otherwise than its flow: features of clips, with a schedule of its own.
FLOWS = {"extract": "features"}


def test_there_is_a_deployment_for_each_flow() -> None:
    names = [deployment["name"] for deployment in DEPLOYMENTS]
    assert names == [
        "features",
        "extract",
        "views",
        "simulate",
        "train",
        "evaluate",
        "experiment",
        "search",
        "predict",
        "nightly",
    ]
    assert len(PrefectYamlModel.model_validate(DOCUMENT).deployments) == len(names)
    assert DOCUMENT["pull"] == []


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment["name"])
def test_a_deployment_fits_its_flow(deployment: dict[str, Any]) -> None:
    flow: Flow[..., Any] = load_flow_from_entrypoint(deployment["entrypoint"], use_placeholder_flow=False)
    assert flow.name == FLOWS.get(deployment["name"], deployment["name"])
    parameters = inspect.signature(flow.fn).parameters
    assert set(deployment["parameters"]) <= set(parameters)
    required = {name for name, parameter in parameters.items() if parameter.default is parameter.empty}
    assert required <= set(deployment["parameters"])
    flow.validate_parameters(deployment["parameters"])
    for name, schema in flow.parameters.properties.items():
        assert schema.get("description", "").endswith("."), f"{name} is not described in the docstring's Args"
        assert schema["title"] == name
    json.dumps(flow.parameters.model_dump())


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment["name"])
def test_a_deployment_says_what_it_is_and_does_nothing_by_itself(deployment: dict[str, Any]) -> None:
    assert deployment["description"].endswith(".")
    assert "lnln" in deployment["tags"]
    assert deployment["work_pool"]["name"] == "default"
    assert deployment["schedules"] and all(schedule["active"] is False for schedule in deployment["schedules"])
    limit = deployment["concurrency_limit"]
    assert limit["limit"] >= 1 and ConcurrencyLimitStrategy(limit["collision_strategy"])
    # A run that waits is not what a schedule wants, whose next run does the same.
    assert (limit["limit"] == 1) == (limit["collision_strategy"] == "CANCEL_NEW")


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment["name"])
def test_a_flow_ends_in_time_is_named_and_says_what_went_wrong(deployment: dict[str, Any]) -> None:
    flow: Flow[..., Any] = load_flow_from_entrypoint(deployment["entrypoint"], use_placeholder_flow=False)
    assert flow.timeout_seconds and flow.timeout_seconds >= 3600
    assert flow.flow_run_name
    assert flow.retries == 0  # its stages are tried again, where that may help
    assert [hook.__name__ for hook in flow.on_failure_hooks or []] == ["tell_of_failure"]
    assert [hook.__name__ for hook in flow.on_crashed_hooks or []] == ["tell_of_failure"]
