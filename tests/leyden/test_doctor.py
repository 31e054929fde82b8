"""doctor: which optional libraries are here and what brings those that are not, and which plugins are broken."""

import importlib.metadata
from typing import Any

import pytest

from leyden.main import main


def section(text: str, title: str) -> dict[str, str]:
    lines = text.partition(f"{title}:\n")[2].partition("\n\n")[0].splitlines()
    return {name: rest for name, _, rest in (line.strip().partition(" ") for line in lines)}


def test_extras(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    versions = {"timm": "0.9.1", "tensorboard": None}
    real = importlib.metadata.version

    def version(name: str) -> str:
        found = versions.get(name, "")
        if found is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found or real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    main(["doctor"])
    found = section(capsys.readouterr().out, "extras")
    assert found.keys() >= {"timm", "tensorboard", "pyarrow"}
    assert not {"pytest", "ruff", "hypothesis"} & found.keys(), "those are for developers"
    assert found["timm"].strip().startswith("0.9.1, needed is >=")
    assert found["timm"].endswith(": pip install 'leyden[timm]'")
    assert found["tensorboard"].strip() == "not installed: pip install 'leyden[tensorboard]'"
    assert found["pyarrow"].strip() == real("pyarrow")


def test_a_broken_plugin_is_a_problem(site: Any, capsys: pytest.CaptureFixture[str]) -> None:
    site.add("wrecks", {"networks": {"Wreck": "wreck_of_doctor:Net"}}, wreck_of_doctor="raise OSError('no licence')\n")
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert "Wreck (broken)" in section(said, "plugins")["networks"]
    assert "network 'Wreck' of package wrecks 1.0 (wreck_of_doctor:Net) cannot be imported: OSError: no licence" in said
