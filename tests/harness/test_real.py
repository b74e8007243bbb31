"""The real thing: the embedded checkpoint in vLLM, a real OpenAI-compatible server, the wheel in an empty folder."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.config import make_spec
from harness.engine import run
from harness.models import embedded
from harness.store import load

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def harness(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def children_of(group: int) -> list[str]:
    """Processes that are left of a process group."""
    done = subprocess.run(["ps", "-eo", "pgid=,args="], capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if line.split()[0] == str(group)]


def test_the_embedded_checkpoint_goes_from_weights_to_pdf_quietly_and_leaves_nothing_behind(tmp_path: Path) -> None:
    embedded.ensure()
    command = ["run", "--model", "smollm2-135m", "--limit", "2", "--attacks", "direct,prefill,completion"]
    command += ["--max-tokens", "16", "--task-limit", "2", "--set", "prefill.depths=0,5", "--out", "out"]
    child = subprocess.Popen(
        [sys.executable, "-m", "harness", *command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    out, err = child.communicate(timeout=800)
    assert child.returncode == 0, err
    assert out.strip().splitlines()[-1] == "out/report.pdf"
    assert not [word for word in ("Warning", "leaked", "Traceback", "INFO", "WARNING") if word in err], err
    assert not children_of(child.pid)

    done = load(tmp_path / "out")
    # 2 behaviors x (1 direct + 2 depths + 1 completion) + 2 look-alikes + 3 tasks x 2 items
    assert len(done.records) == 16
    assert not [r for r in done.records if r.error]
    assert {r.task for r in done.records} == {"magic", "magic-lookalikes", "arithmetic", "knowledge", "instructions"}
    assert done.info["models"]["smollm2-135m"]["chat_template_sha"]
    assert (tmp_path / "out" / "report.pdf").read_bytes().startswith(b"%PDF")

    again = harness(*command, "--quiet", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert load(tmp_path / "out").records == done.records
    assert load(tmp_path / "out").info["budget"]["requests"] == done.info["budget"]["requests"]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """vLLM's own OpenAI-compatible server with the embedded checkpoint, on loopback."""
    path = str(embedded.ensure())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", path, "--port", str(port)]
    command += ["--host", "127.0.0.1", "--served-model-name", "served", "--dtype", "float32", "--enforce-eager"]
    command += ["--max-model-len", "2048", "--max-num-seqs", "16"]
    settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1"}
    child = subprocess.Popen(
        command,
        env={**os.environ, **settings},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 600
    try:
        while True:
            assert child.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server did not come up"
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
                break
            except OSError:
                time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(child.pid, signal.SIGTERM)
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def test_an_openai_compatible_server_takes_every_kind_of_prompt_and_judges(server: str, tmp_path: Path) -> None:
    spec = make_spec(
        {
            "model": "served",
            "base_url": server,
            "attacks": "direct,prefill,completion",
            "limit": 2,
            "max_tokens": 12,
            "task_limit": 1,
            "judge": "rules,llm",
            "set": ["prefill.depths=5"],
            "timeout": 400,
        }
    )
    done = run(spec, tmp_path / "out")
    assert done.info["models"]["served"]["can"] == ["chat", "logprobs", "prefill", "raw"]
    assert not [r for r in done.records if r.error], [r.error for r in done.records]
    # 2 x (direct, prefill, completion) + 2 look-alikes, each judged twice; 3 tasks x 1 item
    assert [len(r.judgements) for r in done.records if r.attack].count(2) == 8
    assert sum(r.judgements[0].label in ("correct", "wrong") for r in done.records) == 3


def test_the_wheel_holds_exactly_the_packages_and_runs_from_an_empty_folder(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    wheel = next(tmp_path.glob("harness-*.whl"))
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"harness", "attacks", "tasks", "reports"}
    for data in ("tasks/behaviors/magic.jsonl", "reports/templates/report.typ", "harness/judges/presets/paper.yaml"):
        assert data in names
    kept = subprocess.run(["git", "ls-files", "harness/train"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert set(kept.stdout.split()) <= set(names)  # recipes, data and the adapters that ship
    assert not [name for name in names if "__pycache__" in name or name.startswith("tests")]

    home = tmp_path / "env"
    venv.create(home, system_site_packages=False, with_pip=False)
    site = next(home.glob("lib/python*/site-packages"))
    zipfile.ZipFile(wheel).extractall(site)
    # the libraries of this environment, but not its own installed harness
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    for path in Path(pytest.__file__).parents[1].iterdir():
        if "harness" not in path.name:
            (libraries / path.name).symlink_to(path)
    (site / "libraries.pth").write_text(str(libraries) + "\n")
    empty = tmp_path / "empty"
    empty.mkdir()
    command = ["run", "--model", "scripted:comply?rate=0.5", "--limit", "3", "--tasks", "none", "--quiet"]
    done = subprocess.run(
        [str(home / "bin" / "python"), "-I", "-m", "harness", *command], cwd=empty, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    [folder] = (empty / "runs").iterdir()
    assert json.loads((folder / "run.json").read_text())["status"] == "complete"
    assert (folder / "report.pdf").exists()


def test_two_processes_that_need_the_checkpoint_at_once_make_it_once_and_whole(tmp_path: Path) -> None:
    code = "from harness.models.embedded import ensure; print(ensure())"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HARNESS_CACHE": str(tmp_path)}
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / embedded.WHEEL).symlink_to(embedded.wheel())
    # what a kill in the middle of an earlier conversion leaves behind
    torn = tmp_path / "models" / embedded.NAME
    torn.mkdir(parents=True)
    (torn / "model.safetensors").write_bytes(b"torn")
    both = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    told = [child.communicate(timeout=600)[1] for child in both]
    assert [child.returncode for child in both] == [0, 0]
    assert sum("converting" in text for text in told) == 1
    kept = (torn / embedded.DONE).read_text().strip()
    assert kept == embedded.file_sha256(torn / "model.safetensors")
    assert [p.name for p in (tmp_path / "models").iterdir() if p.name.startswith(f".{embedded.NAME}-")] == []
