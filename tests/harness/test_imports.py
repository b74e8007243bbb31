"""Who may import whom: the layers, and what a light command must not load."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness import registry

ROOT = Path(__file__).parents[2]
PLUGINS = ("attacks", "tasks", "reports")
SPINE = {"harness.engine", "harness.cli", "harness.plan", "harness.manifest"}


def imports(path: Path) -> set[str]:
    """Every module a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def files(*packages: str) -> list[Path]:
    return [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", files(*PLUGINS), ids=ids)
def test_plugins_import_neither_each_other_nor_the_spine(path: Path) -> None:
    own = path.relative_to(ROOT).parts[0]
    others = {name for name in imports(path) if name.split(".")[0] in PLUGINS and name.split(".")[0] != own}
    assert not others
    assert not imports(path) & SPINE


@pytest.mark.parametrize("path", files("harness"), ids=ids)
def test_harness_reaches_plugins_through_the_registry_only(path: Path) -> None:
    named = {name for name in imports(path) if name.split(".")[0] in PLUGINS}
    # lm-eval needs the folder of the bundled tasks
    assert not named or (path.name == "helpfulness.py" and named == {"tasks"})


def test_every_kind_of_plugin_is_asked_for_somewhere() -> None:
    asked = r"registry\.(?:load|make|table)\(\"(\w+)\""
    found = {kind for path in files("harness") for kind in re.findall(asked, path.read_text(encoding="utf-8"))}
    assert found == set(registry.TABLES)


@pytest.mark.parametrize("name", ["types", "errors"])
def test_the_nouns_import_nothing_of_ours(name: str) -> None:
    assert not {m for m in imports(ROOT / "harness" / f"{name}.py") if m.startswith("harness")}


def test_the_command_line_starts_without_heavy_libraries() -> None:
    heavy = ("torch", "vllm", "transformers", "pandas", "matplotlib", "scipy", "lm_eval", "openai", "typst")
    code = (
        "import sys, harness, harness.cli; from harness.listing import listing; list(listing(None)); "
        f"print([m for m in {heavy!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
