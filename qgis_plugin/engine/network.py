"""QGIS's proxy and certificates as environment variables, for tools that download outside QGIS."""

from __future__ import annotations

import ssl
from pathlib import Path
from urllib.parse import quote

from qgis.core import QgsApplication, QgsSettings


def proxy_environment() -> dict[str, str]:
    """HTTP_PROXY and its fellows as set in the options of QGIS; empty when QGIS uses none of its own."""
    settings = QgsSettings()
    if str(settings.value("proxy/proxyEnabled", "false")).lower() not in ("true", "1"):
        return {}
    kind = str(settings.value("proxy/proxyType", "DefaultProxy"))
    host = str(settings.value("proxy/proxyHost", "") or "")
    if not host or kind in ("DefaultProxy", "NoProxy"):
        return {}
    port = str(settings.value("proxy/proxyPort", "") or "")
    user = str(settings.value("proxy/proxyUser", "") or "")
    password = str(settings.value("proxy/proxyPassword", "") or "")
    scheme = "socks5h" if kind.startswith("Socks5") else "http"
    login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user else ""
    address = f"{scheme}://{login}{host}" + (f":{port}" if port else "")
    excluded = settings.value("proxy/noProxyUrls", []) or settings.value("proxy/proxyExcludedUrls", []) or []
    excluded = excluded.split("|") if isinstance(excluded, str) else [str(one) for one in excluded]
    hosts = [one.split("://")[-1].split("/")[0] for one in excluded if one]
    values = {"HTTP_PROXY": address, "HTTPS_PROXY": address, "ALL_PROXY": address}
    values["NO_PROXY"] = ",".join(["localhost", "127.0.0.1", *hosts])
    return {**values, **{name.lower(): value for name, value in values.items()}}


def certificate_environment(folder: Path) -> dict[str, str]:
    """A file with the authorities that QGIS trusts, when the user has added some; made in `folder`."""
    manager = QgsApplication.authManager()
    if manager.isDisabled() or not (manager.databaseCAs() or manager.extraFileCAs()):
        return {}
    path = folder / "trusted.pem"
    text = bytes(manager.trustedCaCertsPemText())
    system = ssl.get_default_verify_paths().cafile
    if system and Path(system).is_file():
        text += b"\n" + Path(system).read_bytes()
    path.write_bytes(text)
    return {"PIP_CERT": str(path), "SSL_CERT_FILE": str(path), "REQUESTS_CA_BUNDLE": str(path)}
