"""A module run with another build of the extension."""

import shutil
import subprocess
import sys

import pytest

from benchmarks.gpu.tools import ROOT
from benchmarks.gpu.variant import use_extension
from d3fast import _C


def test_the_probe_runs_with_the_other_extension(tmp_path):
    other = shutil.copy(_C.__file__, tmp_path)
    options = ["--device", "cpu", "--shrink", "2000", "--workload", "10x2.5M"]
    script = (
        "import runpy, sys, d3fast;"
        "runpy.run_module('benchmarks.gpu.variant', run_name='__main__');"
        "print(sys.modules['d3fast._C'].__file__, d3fast.optim.backends.native.extension.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(other), "benchmarks.gpu.probe", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["parameters: 12500", f"{other} {other}"]


@pytest.mark.parametrize("path", ["", "no_extension.txt"])
def test_a_file_that_is_no_extension_is_refused(path):
    with pytest.raises(ValueError, match="extension must be an extension module"):
        use_extension(path)
