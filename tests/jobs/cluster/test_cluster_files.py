"""cluster.yaml, Kubernetes files and Dockerfile: what can be checked without a cloud."""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
TEXT = (ROOT / "cluster.yaml").read_text("utf-8")
KUBERNETES = sorted((ROOT / "configs" / "kuberay").glob("*.yaml"))
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")

KNOWN_TYPES = {"m6i.xlarge": (4, 0, 16), "g5.2xlarge": (8, 1, 32), "c6i.4xlarge": (16, 0, 32)}
"""CPUs, GPUs and GiB of memory of the machines that cluster.yaml names, from AWS's tables."""


def pinned_ray() -> str:
    (pin,) = [text for text in PROJECT["project"]["dependencies"] if text.startswith("ray[")]
    return pin.partition("==")[2].removesuffix(".*")


def pinned_python() -> str:
    return str(PROJECT["project"]["requires-python"]).removeprefix(">=")


@pytest.fixture
def config() -> dict[str, Any]:
    loaded = yaml.safe_load(TEXT)
    assert isinstance(loaded, dict)
    return loaded


def problems(config: dict[str, Any]) -> Iterator[str]:
    """What Ray's validator misses."""
    for remote, local in config["file_mounts"].items():
        path = Path(local).expanduser()
        if not local.startswith("~") and not (ROOT / path).exists():
            yield f"{remote}: {local} is missing"
    docker = config["docker"]
    images = [docker["head_image"], docker["worker_image"]]
    kinds = config["available_node_types"]
    images += [
        k["docker"]["worker_image"] for k in kinds.values() if "worker_image" in k.get("docker", {})
    ]
    tag = f":{pinned_ray()}.0-py{pinned_python().replace('.', '')}-"
    yield from (f"image {image}" for image in images if tag not in image)
    for name, kind in kinds.items():
        machine = KNOWN_TYPES.get(kind["node_config"]["InstanceType"])
        if machine is None:
            yield f"{name}: unknown machine"
            continue
        cpus, gpus, memory = machine
        is_head = name == config["head_node_type"]
        expected = {"CPU": 0} if is_head else {"CPU": cpus} | ({"GPU": gpus} if gpus else {})
        if kind["resources"] != expected:
            yield f"{name}: {kind['resources']} on a machine with {expected}"
        options = docker["head_run_options"] if is_head else kind["docker"]["worker_run_options"]
        shm = [int(m[1]) for o in options if (m := re.fullmatch(r"--shm-size=(\d+)g", o))]
        if not shm or not 0.3 * memory < shm[0] < memory / 2:
            yield f"{name}: shm {shm} of {memory}"
        if not kind["node_config"].get("SecurityGroupIds"):
            yield f"{name}: Ray would open SSH to the world"
        if not is_head and kind["min_workers"]:
            yield f"{name}: costs at rest"
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        starts = [command for command in config[key] if "ray start" in command]
        if len(starts) != 1 or "RAY_AUTH_MODE=token" not in starts[0]:
            yield f"{key}: no token"
    for folder in {str(Path(remote).parent) for remote in config["file_mounts"]}:
        if any(f"pip install --quiet {folder}" in c for c in config["setup_commands"]):
            yield f"{folder}: Docker makes it as root, and a build writes into it"
    if "0.0.0.0" in yaml.safe_dump(config):
        yield "0.0.0.0"
    if "--dashboard-host=127.0.0.1" not in config["head_start_ray_commands"][-1]:
        yield "the dashboard is open"
    if "/home/ray/.ray/auth_token" not in config["file_mounts"]:
        yield "nodes have no token"


def test_rays_own_validator_accepts_the_cluster(config: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(config)
    validate_config(prepared)
    assert not [c for c in prepared["setup_commands"] if "s3-us-west-2" in c]  # a nightly wheel
    with pytest.raises(Exception, match=r"is not of type"):
        validate_config(prepared | {"idle_timeout_minutes": "soon"})


def test_the_cluster_has_none_of_the_faults_that_ray_misses(config: dict[str, Any]) -> None:
    assert list(problems(config)) == []


def _without_mount(config: dict[str, Any]) -> None:
    config["file_mounts"]["/x"] = "./nowhere"


def _other_image(config: dict[str, Any]) -> None:
    config["docker"]["worker_image"] = "rayproject/ray:2.9.0-py311-gpu"


def _unknown_machine(config: dict[str, Any]) -> None:
    config["available_node_types"]["gpu"]["node_config"]["InstanceType"] = "g5.2xlrage"


def _open_dashboard(config: dict[str, Any]) -> None:
    config["head_start_ray_commands"][-1] = "RAY_AUTH_MODE=token ray start --dashboard-host=0.0.0.0"


def _no_token(config: dict[str, Any]) -> None:
    config["worker_start_ray_commands"] = ["ray start --address=$RAY_HEAD_IP:6379"]


def _build_in_a_mount(config: dict[str, Any]) -> None:
    config["setup_commands"] = ["pip install --quiet /home/ray/wpcrack"]


def _busy_head(config: dict[str, Any]) -> None:
    config["available_node_types"]["head"]["resources"] = {"CPU": 4}


@pytest.mark.parametrize(
    "spoil",
    [
        _without_mount,
        _other_image,
        _unknown_machine,
        _open_dashboard,
        _no_token,
        _build_in_a_mount,
        _busy_head,
    ],
)
def test_each_fault_is_noticed(config: dict[str, Any], spoil: Any) -> None:
    spoiled = copy.deepcopy(config)
    spoil(spoiled)
    assert list(problems(spoiled))


def test_a_user_finds_every_place_to_change() -> None:
    for placeholder in re.finditer(r"^.*(?:ami-0{8}|sg-0{8}|fs-0{8}|\.pem|KeyName).*$", TEXT, re.M):
        before = TEXT[: placeholder.end()].splitlines()[-4:]
        assert any("CHANGE" in line for line in before), placeholder[0]
    assert "Cost per hour" in TEXT


def containers(node: object) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each pod's spec with its container."""
    if isinstance(node, dict):
        if "containers" in node:
            yield from ((node, one) for one in node["containers"])
        for value in node.values():
            yield from containers(value)
    elif isinstance(node, list):
        for value in node:
            yield from containers(value)


@pytest.mark.parametrize("path", KUBERNETES, ids=lambda path: path.stem)
def test_kubernetes_files_say_what_our_cluster_needs(path: Path) -> None:
    document = yaml.safe_load(path.read_text("utf-8"))
    assert document["apiVersion"] == "ray.io/v1"
    is_job = document["kind"] == "RayJob"
    spec = document["spec"]["rayClusterSpec"] if is_job else document["spec"]
    assert spec["rayVersion"] == f"{pinned_ray()}.0"
    assert spec["authOptions"] == {"mode": "token"}
    head = spec["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert head["serviceType"] == "ClusterIP"
    if is_job:
        assert document["spec"]["shutdownAfterJobFinishes"]
        assert yaml.safe_load(document["spec"]["runtimeEnvYAML"])["env_vars"]
        assert document["spec"]["entrypoint"].startswith("wpcrack infer tiles=/")
    found = list(containers(spec))
    assert len(found) == 1 + len(spec["workerGroupSpecs"])
    image = f"wpcrack:{PROJECT['project']['version']}"
    for pod, container in found:
        assert container["image"].endswith(f"/{image}")
        assert pod["securityContext"]["runAsNonRoot"]
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
        memory = int(container["resources"]["limits"]["memory"].removesuffix("Gi"))
        shm = int(volumes["shm"]["emptyDir"]["sizeLimit"].removesuffix("Gi"))
        assert 0.3 * memory < shm < memory / 2
    assert "0.0.0.0" not in path.read_text("utf-8")


def test_the_image_fits_the_project() -> None:
    assert f"ARG PYTHON={pinned_python()}\n" in DOCKERFILE
    stages = re.split(r"^FROM .*$", DOCKERFILE, flags=re.M)[1:]
    source, build_map, build, base, only_map, final = stages
    assert all("--only-binary=:all:" in stage for stage in (build, build_map))
    assert "-r requirements-map.txt" in build_map
    assert "torch" not in build_map
    assert ("--from=build-map " in only_map, "--from=build " in final) == (True, True)
    for tool in ("gcc", "g++", "build-essential", "cmake", "libgdal"):
        assert tool not in DOCKERFILE
    assert re.search(r"^USER 1000:1000$", base, re.M)
    assert "wget" in base  # health checks of KubeRay
    assert PROJECT["project"]["version"] in DOCKERFILE
    for copied in re.findall(r"^COPY (?!--from)(.+) \S+$", source, re.M):
        for name in copied.split():
            assert (ROOT / name).exists()
            assert f"!{name}\n" in (ROOT / ".dockerignore").read_text("utf-8")
