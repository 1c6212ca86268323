"""What is changed of other libraries says for which versions; another one is warned of, once."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from importlib import metadata

import pytest
from workflow import ROOT

from bettersynth.runtime.patches import versions

PATCHES = ROOT / "scripts" / "bettersynth" / "runtime" / "patches"


@pytest.mark.parametrize("library", sorted(versions.MADE_FOR))
def test_what_is_installed_is_what_changes_were_made_for(library):
    assert versions.made_for(library)


def test_another_version_is_warned_of_once(monkeypatch, caplog):
    monkeypatch.setattr(versions.metadata, "version", lambda library: "4.570")
    versions.made_for.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert [versions.made_for("transformers"), versions.made_for("transformers")] == [False, False]
    versions.made_for.cache_clear()
    [line] = caplog.messages
    assert "transformers 4.570 is installed" in line and "made for 4.57" in line and "make setup" in line


def test_every_library_of_the_package_states_its_versions():
    named = {name for path in PATCHES.glob("*.py") for name in re.findall(r'made_for\("([\w-]+)"\)', path.read_text())}
    assert named == versions.MADE_FOR.keys()
    assert all(metadata.version(library) for library in named)


def test_nltk_finds_its_data_also_when_it_was_imported_before(tmp_path):
    code = (
        "import sys, nltk; from bettersynth.runtime import patches; "
        "patches.prepare(sys.argv[1]); print(nltk.data.find('tokenizers/punkt_tab'))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "NLTK_DATA"}
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert str(ROOT / "models") in done.stdout
