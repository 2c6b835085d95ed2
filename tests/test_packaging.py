"""What is built from the tree: a source archive that can be built again, a wheel with the package and nothing else, and
requirements that name what is imported."""

from __future__ import annotations

import ast
import configparser
import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import sidecar

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sidecar"
PURE = {**os.environ, "SIDECAR_NO_EXTENSIONS": "1"}
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv*", ".tools", "*.egg-info", "build", "dist", "__pycache__", "*.so", ".*_cache"
)


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def requirements(text: str) -> list[Requirement]:
    return [Requirement(line) for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]


INSTALLED = requirements(setup_cfg()["options"]["install_requires"])
# The distributions behind each name that can be imported.
MAKERS = {name: [canonicalize_name(each) for each in made] for name, made in packages_distributions().items()}
TEST = requirements(setup_cfg()["options.extras_require"]["test"])


def build(what: str, tree: Path, to: Path) -> Path:
    """Run one hook of the build backend in `tree`, as an installer would."""
    code = f"import sys; from setuptools import build_meta; print('built', build_meta.build_{what}({str(to)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tree, env=PURE, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stdout + done.stderr
    return to / done.stdout.rpartition("built ")[2].strip()


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("sdist")
    tree = shutil.copytree(ROOT, work / "tree", ignore=LEFT_OUT)
    return build("sdist", tree, work)


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the source archive, so that the archive is shown to hold what a build needs."""
    work = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(work, filter="data")
    (tree,) = work.iterdir()
    return build("wheel", tree, work)


def sources_of_package() -> set[str]:
    return {str(path.relative_to(ROOT)) for path in PACKAGE.rglob("*.py")}


def test_the_source_archive_holds_what_a_reader_and_a_builder_need(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"LICENSE", "README.md", "CHANGELOG.md", "Dockerfile", "setup.cfg", "pyproject.toml"}
    wanted |= {"config/sidecar.yaml", "charts/sidecar/Chart.yaml", "requirements.lock", "tests/test_packaging.py"}
    wanted |= {str(path.relative_to(ROOT)) for suffix in ("py", "pyx", "pxd") for path in PACKAGE.rglob(f"*.{suffix}")}
    assert wanted - names == set()


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    metadata = f"consul_grpc_sidecar-{sidecar.__version__}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"sidecar", metadata}
    assert sources_of_package() - set(names) == set()
    assert "sidecar/py.typed" in names
    assert f"{metadata}/licenses/LICENSE" in names


def test_the_page_of_the_admin_api_is_in_the_wheel(wheel: Path) -> None:
    pages = {str(path.relative_to(ROOT)) for path in PACKAGE.rglob("*.html")}
    assert pages - set(zipfile.ZipFile(wheel).namelist()) == set()


def test_without_a_compiler_the_wheel_is_for_every_machine(wheel: Path) -> None:
    assert wheel.name == f"consul_grpc_sidecar-{sidecar.__version__}-py3-none-any.whl"
    assert not [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith((".so", ".c"))]


def test_the_wheel_says_what_it_is_and_what_it_needs(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    folder = f"consul_grpc_sidecar-{sidecar.__version__}.dist-info"
    metadata = email.message_from_bytes(archive.read(f"{folder}/METADATA"))
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Version"] == sidecar.__version__
    assert "# " in metadata.get_payload()
    assert "sidecar = sidecar.cli:main" in archive.read(f"{folder}/entry_points.txt").decode()


def test_the_wheel_runs_where_nothing_else_of_the_tree_is(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "version"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert f"sidecar {sidecar.__version__}" in done.stdout, done.stderr


def imports_of(path: Path) -> set[str]:
    """The top names of what a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def undeclared(folder: Path, declared: list[Requirement], own: set[str]) -> dict[str, set[str]]:
    """What the files of a folder import and no requirement names."""
    known = {canonicalize_name(each.name) for each in declared}
    found = {}
    for path in folder.rglob("*.py"):
        foreign = imports_of(path) - set(sys.stdlib_module_names) - own
        if missing := {name for name in foreign if not known.intersection(MAKERS.get(name, ()))}:
            found[str(path.relative_to(ROOT))] = missing
    return found


def test_every_package_that_is_imported_is_required() -> None:
    assert undeclared(PACKAGE, INSTALLED, {"sidecar"}) == {}


def test_every_package_that_a_test_imports_is_in_the_extra() -> None:
    assert undeclared(ROOT / "tests", [*INSTALLED, *TEST], {"sidecar", "tests", "benchmarks"}) == {}


@pytest.mark.parametrize("requirement", INSTALLED, ids=lambda each: each.name)
def test_a_requirement_has_a_lower_and_an_upper_bound(requirement: Requirement) -> None:
    assert {each.operator for each in requirement.specifier} == {">=", "<"}


def locked(name: str) -> dict[str, tuple[Version, int]]:
    """The packages of a lock file with version and number of hashes."""
    text = re.sub(r"\\\n\s*", " ", (ROOT / name).read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    pins = [re.match(r"(\S+)==(\S+)", line) for line in lines]
    assert all(pins), "a line of the lock file is not name==version"
    return {
        canonicalize_name(pin[1]): (Version(pin[2]), line.count("--hash=sha256:"))
        for pin, line in zip(pins, lines, strict=True)
        if pin
    }


def test_the_image_is_built_from_versions_that_the_package_allows() -> None:
    lock = locked("requirements.lock")
    for requirement in INSTALLED:
        version, _ = lock[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} but {version}: run scripts/lock"


def test_the_image_is_built_with_the_tools_that_the_build_asks_for() -> None:
    lock = locked("requirements-build.lock")
    for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]:
        requirement = Requirement(line)
        version, _ = lock[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} but {version}: run scripts/lock"


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-build.lock"])
def test_every_archive_of_the_image_is_known_by_its_hash(name: str) -> None:
    assert {package for package, (_, hashes) in locked(name).items() if hashes == 0} == set()


def test_wheels_are_made_for_every_python_on_both_architectures() -> None:
    command = [sys.executable, "-m", "cibuildwheel", "--platform", "linux", "--print-build-identifiers", "."]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert listed.returncode == 0, listed.stderr
    wanted = [f"cp3{minor}-manylinux_{machine}" for machine in ("x86_64", "aarch64") for minor in (11, 12, 13, 14)]
    assert listed.stdout.split() == wanted
