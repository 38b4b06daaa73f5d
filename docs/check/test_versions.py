# SPDX-License-Identifier: Apache-2.0
"""Versions that stand in two files are the same in both."""

import re
import sys

import pytest

from docs.check.pages import ROOT

if sys.version_info < (3, 11):
    pytest.skip("needs tomllib", allow_module_level=True)
import tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_pre_commit_uses_the_tools_of_make_lint():
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    used = set(re.findall(r'additional_dependencies: \["([^"]+)"\]', hooks))
    assert used
    assert used <= set(PROJECT["dependency-groups"]["lint"])


def test_the_citation_names_the_version():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {PROJECT['project']['version']}\n" in citation
