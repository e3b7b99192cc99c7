"""The managed environment, made by a real venv and pip, with small packages for PyTorch and the engine."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from qgis.core import QgsSettings

from qgis_plugin.engine import steps as steps_module
from qgis_plugin.engine.client import EngineClient
from qgis_plugin.engine.command import READY, environment_python, find_engine, managed_folder
from qgis_plugin.engine.install import Installer, plan_install
from qgis_plugin.engine.network import proxy_environment
from qgis_plugin.engine.pythons import candidates, fits
from qgis_plugin.engine.report import engine_report, redact
from qgis_plugin.engine.trouble import classify
from qgis_plugin.settings import Settings
from tests.qgis.test_engine_client import ended, gone

FAKE = Path(__file__).with_name("fake_engine.py")
REPO = Path(__file__).resolve().parents[2]


def wheel(folder: Path, name: str, version: str, files: dict[str, str], requires: tuple[str, ...] = ()) -> None:
    """Write a wheel by hand."""
    info = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {one}\n" for one in requires)
    files = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = []
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record.append(f"{path},sha256={digest},{len(text.encode())}")
        archive.writestr(f"{info}/RECORD", "\n".join([*record, f"{info}/RECORD,,"]) + "\n")


@pytest.fixture
def wheels(tmp_path, monkeypatch) -> Path:
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    folder = tmp_path / "wheels"
    folder.mkdir()
    wheel(folder, "torch", "2.9", {"torch/__init__.py": "", **{f"torch/m{k}.py": "x = 1\n" * 200 for k in range(400)}})
    wheel(
        folder, "geoalign", "0.1.0",
        {"geoalign_core/__init__.py": "", "geoalign_core/__main__.py": FAKE.read_text()}, ("torch",),
    )  # fmt: skip
    return folder


@pytest.fixture
def plan(wheels, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/must/not/matter")
    monkeypatch.setenv("PIP_TARGET", "/must/not/matter")
    return plan_install(Settings(), wheels=str(wheels), folder=tmp_path / "data" / "geoalign" / "engine-0.1.0")


class Run:
    """Collects what an installer emits."""

    def __init__(self, plan):
        self.installer = Installer(plan)
        self.stages, self.parts, self.lines, self.done, self.errors = [], [], [], [], []
        self.installer.stage.connect(self.stages.append)
        self.installer.progress.connect(self.parts.append)
        self.installer.line.connect(self.lines.append)
        self.installer.done.connect(lambda: self.done.append(True))
        self.installer.failed.connect(self.errors.append)
        self.installer.start()

    @property
    def over(self) -> bool:
        return bool(self.done or self.errors)


def finish(qtbot, run: Run) -> Run:
    qtbot.waitUntil(lambda: run.over, timeout=90_000)
    return run


def test_the_plan_tells_size_and_folder_and_starts_nothing():
    plan = plan_install(Settings(), cuda=False)
    assert plan.folder == managed_folder()
    assert plan.folder.name == "engine-0.1.0"
    assert 0 < plan.size_mb < plan_install(Settings(), cuda=True).size_mb
    assert plan.free_mb > 0
    assert abs(sum(step.share for step in plan.steps) - 1) < 1e-6
    assert not plan.folder.exists()


def test_an_installation_from_a_folder(qtbot, plan, monkeypatch):
    run = finish(qtbot, Run(plan))
    assert run.errors == []
    assert run.parts == sorted(run.parts)
    assert run.parts[-1] == 1.0
    assert len(run.stages) >= len(plan.steps)
    assert json.loads((plan.folder / READY).read_text())["version"] == "0.1.0"
    beside = {path.name for path in plan.folder.parent.iterdir()}
    assert beside == {"engine-0.1.0", "engine-0.1.0.log"}
    assert "Successfully installed" in (plan.folder.parent / "engine-0.1.0.log").read_text()

    monkeypatch.setattr("qgis_plugin.engine.command.managed_folder", lambda: plan.folder)
    choice = find_engine(Settings())
    assert choice.kind == "managed"
    client = EngineClient(Settings())
    assert ended(qtbot, client.request("ask", {"query": "cars"})).results[0]["query"] == "cars"
    client.stop()


INTERRUPTED = """
import sys, os, signal
sys.path.insert(0, {repo!r})
from pathlib import Path
from qgis.core import QgsApplication
application = QgsApplication([], False)
application.initQgis()
from qgis_plugin.engine.install import Installer, plan_install
from qgis_plugin.settings import Settings
installer = Installer(plan_install(Settings(), wheels={wheels!r}, folder=Path({folder!r})))
installer.line.connect(lambda line: line.startswith("Installing collected") and stop())
installer.failed.connect(lambda error: (print(error, flush=True), application.quit()))
def stop():
    print(installer._process.processId(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
installer.start()
application.exec()
"""


def test_killed_in_the_middle_and_resumed(qtbot, plan, wheels, tmp_path):
    code = INTERRUPTED.format(repo=str(REPO), wheels=str(wheels), folder=str(plan.folder))
    environ = {**os.environ, "QT_QPA_PLATFORM": "offscreen", "QGIS_CUSTOM_CONFIG_PATH": str(tmp_path / "profile")}
    environ.pop("PYTHONPATH", None)
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == -9, ran.stdout + ran.stderr
    assert gone(int(ran.stdout.split()[-1]))
    assert find_engine_at(plan.folder) is False
    marker = plan.folder.parent / "engine-0.1.0.installing.json"
    assert json.loads(marker.read_text())["done"] == ["venv"]

    run = finish(qtbot, Run(plan))
    assert run.errors == []
    assert "Making the environment" not in run.stages
    assert find_engine_at(plan.folder)


def find_engine_at(folder: Path) -> bool:
    return (folder / READY).is_file()


def test_another_plan_begins_anew(qtbot, plan, wheels):
    run = Run(plan)
    qtbot.waitUntil(lambda: "Installing PyTorch" in run.stages, timeout=60_000)
    run.installer.cancel()
    assert finish(qtbot, run).errors[0].code == "cancelled"
    assert not find_engine_at(plan.folder)
    second = finish(qtbot, Run(replace(plan, source=str(next(wheels.glob("geoalign*"))))))
    assert second.errors == []
    assert "Making the environment" in second.stages


def test_two_at_once(qtbot, plan):
    first, second = Run(plan), Run(plan)
    qtbot.waitUntil(lambda: bool(second.errors), timeout=10_000)
    assert second.errors[0].code == "install_running"
    assert finish(qtbot, first).errors == []


def test_no_room(qtbot, plan):
    run = finish(qtbot, Run(replace(plan, disk_mb=10**9)))
    assert run.errors[0].code == "disk_full"
    assert not plan.folder.exists()


def test_a_package_is_missing(qtbot, plan, wheels):
    next(wheels.glob("torch*")).unlink()
    run = finish(qtbot, Run(plan))
    assert run.errors[0].code == "no_wheel"
    assert "torch" in run.errors[0].message
    assert run.errors[0].details


def test_a_package_that_another_needs_is_named(qtbot, plan, wheels):
    wheel(wheels, "torch", "2.10", {"torch/__init__.py": ""}, ("filelock>=3.10",))
    next(wheels.glob("torch-2.9*")).unlink()
    run = finish(qtbot, Run(plan))
    assert run.errors[0].message == "No version of filelock>=3.10 that fits this computer was found."


def test_packages_that_do_not_work_are_made_anew_next_time(qtbot, plan, wheels):
    next(wheels.glob("torch*")).unlink()
    wheel(wheels, "torch", "2.9", {"torch/__init__.py": "raise OSError('[WinError 1114] DLL load failed: c10.dll')"})
    run = finish(qtbot, Run(plan))
    assert run.errors[0].code == "torch_load_failed"
    marker = plan.folder.parent / "engine-0.1.0.installing.json"
    assert json.loads(marker.read_text())["done"] == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_disk_that_fills_up(qtbot, wheels, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(small)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no tmpfs here")
    try:
        plan = plan_install(Settings(), wheels=str(wheels), folder=small / "engine-0.1.0")
        run = finish(qtbot, Run(replace(plan, disk_mb=0)))
        assert run.errors[0].code == "disk_full", run.errors
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_no_python(qtbot, plan, monkeypatch):
    monkeypatch.setattr("qgis_plugin.engine.install.candidates", lambda: [["/bin/false"], ["/nowhere/python3"]])
    run = finish(qtbot, Run(replace(plan, python="")))
    assert run.errors[0].code == "no_python"


def test_candidates_are_never_the_program_that_runs():
    assert [sys.executable] not in candidates()
    assert fits("python 3 11 True\n")
    assert not fits("python 3 9 True\n")
    assert not fits("python 3 12 False\n")
    assert not fits("command not found")


def test_commands_of_the_network_way(tmp_path, monkeypatch):
    plan = plan_install(Settings(), cuda=False, folder=tmp_path / "e")

    def command(step, plan, index=True):
        return steps_module.command_of(step, plan, ["/usr/bin/python3"], index)

    monkeypatch.setattr(sys, "platform", "linux")
    assert "https://download.pytorch.org/whl/cpu" in command("torch", plan)
    assert "--index-url" not in command("torch", plan, False)
    assert "--index-url" not in command("torch", replace(plan, cuda=True))
    assert "--index-url" not in command("geoalign", plan)
    assert command("geoalign", plan)[-1] == "geoalign==0.1.0"
    monkeypatch.setattr(sys, "platform", "win32")
    assert "--index-url" not in command("torch", plan)
    assert any("/cu" in part for part in command("torch", replace(plan, cuda=True)))


@pytest.mark.parametrize(
    ("output", "code"),
    [
        ("ProxyError('Cannot connect to proxy.', OSError('Tunnel connection failed: 407 Proxy'))", "proxy"),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]", "tls"),
        ("NewConnectionError('Failed to establish a new connection: [Errno -3] Temporary failure in name", "network"),
        ("OSError: [Errno 28] No space left on device", "disk_full"),
        ("ERROR: No matching distribution found for torch", "no_wheel"),
        ("PermissionError: [WinError 5] Access is denied", "permission"),
        ("OSError: [WinError 225] Operation did not complete because the file contains a virus", "antivirus"),
        ("The virtual environment was not created successfully because ensurepip is not available.", "venv"),
        ("something else", "install"),
    ],
)
def test_failures_have_a_name_and_a_remedy(output, code):
    error = classify("Installing PyTorch", "first line\n" + output)
    assert error.code == code
    assert error.remedy
    assert output in error.details


@pytest.mark.parametrize(
    ("output", "package"),
    [
        ("ERROR: Could not find a version that satisfies the requirement a-b (from torch) (from versions: )", "a-b"),
        ("torch 2.9 depends on filelock>=3\nERROR: ResolutionImpossible: for help visit", "filelock>=3"),
        ("x is not a supported wheel on this platform", "A package"),
    ],
)
def test_a_missing_package_is_named(output, package):
    assert package in classify("Installing PyTorch", output).message


def test_the_proxy_of_qgis_is_passed_on():
    settings = QgsSettings()
    try:
        assert proxy_environment() == {}
        for key, value in {
            "proxyEnabled": True, "proxyType": "HttpProxy", "proxyHost": "proxy.corp", "proxyPort": "3128",
            "proxyUser": "a b", "proxyPassword": "p@ss", "noProxyUrls": ["http://intra.corp/x"],
        }.items():  # fmt: skip
            settings.setValue(f"proxy/{key}", value)
        values = proxy_environment()
        assert values["HTTPS_PROXY"] == values["https_proxy"] == "http://a%20b:p%40ss@proxy.corp:3128"
        assert values["NO_PROXY"] == "localhost,127.0.0.1,intra.corp"
    finally:
        settings.remove("proxy")


def test_the_report_names_versions_and_no_person(qtbot, plan):
    client = EngineClient(Settings())
    text = engine_report(client, Settings())
    for expected in ("QGIS: 3.", "Qt 5", "State:", "Python of QGIS", "Plugin: 0.1.0"):
        assert expected in text
    assert str(Path.home()) not in text


def test_redaction():
    text = (
        r"C:\Users\Jane Roe\AppData c:/users/jane roe/x /home/jroe/data Authorization: Bearer abc.def token=xyz "
        "authcfg=abc1234 http://me:pw@proxy:1 by jroe, jroes"
    )
    clean = redact(redact(text, r"C:\Users\Jane Roe", ""), "/home/jroe", "jroe")
    for hidden in ("Jane", "jane", "abc.def", "xyz", "abc1234", "me:pw", "/home", " jroe,"):
        assert hidden not in clean
    assert "jroes" in clean


@pytest.mark.parametrize(
    "text",
    [
        "GEOALIGN_TOKEN=hidden", "access_token=hidden", "http://h/x?key=hidden&y=2", 'password: "some hidden"',
        "password='some hidden", "http://u:p@hidden@h:8/x", "--token hidden", '{"token": "hidden"}',
        "Authorization: Basic hidden", "-H 'authorization: bearer hidden'", "Bearer hidden",
    ],
)  # fmt: skip
def test_sign_ins_are_hidden(text):
    clean = redact(text, "", "")
    assert "hidden" not in clean and "some" not in clean and "…" in clean


@pytest.mark.parametrize(
    "text",
    [
        "the token is missing or wrong", "give --token-file /x/t or set GEOALIGN_TOKEN", "KeyError: 'x'",
        "the bearer token is missing", "basic settings", "http://h:8765/a and me@x.org", "token_count=5",
    ],
)  # fmt: skip
def test_sentences_about_sign_ins_stay(text):
    assert redact(text, "", "") == text


def test_environment_python(tmp_path):
    assert environment_python(tmp_path) is None
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").touch()
    assert environment_python(tmp_path) == tmp_path / "bin" / "python3"
