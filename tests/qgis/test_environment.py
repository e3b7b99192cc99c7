"""The environment the engine starts in."""

from __future__ import annotations

from qgis_plugin.engine.environment import child_environment


def test_what_would_break_another_python_goes():
    base = {
        "PATH": "/usr/bin", "HOME": "/home/a", "PYTHONHOME": "/x", "PYTHONPATH": "/x",
        "LD_LIBRARY_PATH": "/usr/lib/grass",
        "PROJ_LIB": "/p", "GDAL_DATA": "/g", "VIRTUAL_ENV": "/v", "PIP_TARGET": "/t", "LD_PRELOAD": "a.so",
        "HTTPS_PROXY": "http://proxy:3128", "GEOALIGN_CACHE": "/c", "PIP_INDEX_URL": "https://mirror",
    }  # fmt: skip
    child = child_environment(base, "linux", lambda path: True)
    kept = {"PATH", "HOME", "HTTPS_PROXY", "GEOALIGN_CACHE", "PIP_INDEX_URL"}
    assert {name for name in child if name in base} == kept
    assert child["PYTHONSAFEPATH"] == child["PYTHONUTF8"] == child["PYTHONNOUSERSITE"] == "1"
    assert "PYTHONHOME" in base  # the base is not touched


def test_windows_leaves_the_folders_of_qgis():
    root = r"C:\Program Files\QGIS 3.40"
    base = {
        "Path": rf"{root}\bin;{root}\apps\Python312;C:\Windows\System32;C:\Tools\Git\bin",
        "OSGEO4W_ROOT": root,
        "pythonhome": rf"{root}\apps\Python312",
        "SSL_CERT_FILE": rf"{root}\bin\curl-ca-bundle.crt",
        "REQUESTS_CA_BUNDLE": r"C:\corp\ca.pem",
    }
    child = child_environment(base, "win32", lambda path: True)
    assert child["Path"] == r"C:\Windows\System32;C:\Tools\Git\bin"
    assert "pythonhome" not in child
    assert "SSL_CERT_FILE" not in child
    assert child["REQUESTS_CA_BUNDLE"] == r"C:\corp\ca.pem"


def test_a_mac_bundle_is_left_too():
    base = {
        "PATH": "/Applications/QGIS.app/Contents/MacOS/bin:/opt/homebrew/bin:/usr/bin",
        "QGIS_PREFIX_PATH": "/Applications/QGIS.app/Contents/MacOS",
        "DYLD_LIBRARY_PATH": "/Applications/QGIS.app/Contents/MacOS/lib",
        "PYTHONEXECUTABLE": "/Applications/QGIS.app/Contents/MacOS/bin/python3",
    }
    child = child_environment(base, "darwin", lambda path: True)
    assert child["PATH"] == "/opt/homebrew/bin:/usr/bin"
    assert not {"DYLD_LIBRARY_PATH", "PYTHONEXECUTABLE", "QGIS_PREFIX_PATH"} & set(child)


def test_certificates_that_are_gone_are_not_passed_on():
    child = child_environment({"SSL_CERT_FILE": "/gone.pem", "PATH": "/bin"}, "linux", lambda path: path != "/gone.pem")
    assert "SSL_CERT_FILE" not in child


def test_a_system_qgis_does_not_cost_the_path():
    child = child_environment({"QGIS_PREFIX_PATH": "/usr", "PATH": "/usr/bin:/bin"}, "linux", lambda path: True)
    assert child["PATH"] == "/usr/bin:/bin"
