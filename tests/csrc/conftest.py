"""Programs for sanitizers."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[2] / "csrc"


@pytest.fixture
def run_sanitized(tmp_path):
    """Builds C++ sources into a program with address, undefined or thread sanitizer and runs it."""

    def run(sanitizer, *sources, flags=()):
        compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
        if compiler is None:
            pytest.skip("no C++ compiler to build the program with")
        program = tmp_path / "program"
        always = ["-std=c++17", "-O1", "-g1", "-pthread", f"-I{CSRC}", "-Wno-unknown-pragmas"]
        always += [f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"]
        names = [str(CSRC / source) for source in sources]  # an absolute path stays as it is
        build = subprocess.run(
            [compiler, *always, *flags, *names, "-o", str(program)], capture_output=True, text=True
        )
        if "cannot find -l" in build.stderr or "cannot find lib" in build.stderr:
            pytest.skip(f"the compiler has no library for -fsanitize={sanitizer}")
        assert build.returncode == 0, build.stderr
        # ThreadSanitizer needs its usual memory layout.
        layout = ["setarch", "-R"] if shutil.which("setarch") else []
        done = subprocess.run(
            [*layout, str(program)],
            capture_output=True,
            text=True,
            env={**os.environ, "TSAN_OPTIONS": "halt_on_error=1"},
        )
        assert done.returncode == 0, done.stdout + done.stderr

    return run
