# SPDX-License-Identifier: Apache-2.0
"""Run a module with another build of the extension: ``python -m benchmarks.gpu.variant SO MODULE``.

Arguments after the module are its own.
"""

import importlib.util
import runpy
import sys


def use_extension(path: str) -> None:
    """Make a file the extension ``d3fast._C`` of this process, before d3fast is imported."""
    spec = importlib.util.spec_from_file_location("d3fast._C", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"extension must be an extension module, got {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules["d3fast._C"] = module
    spec.loader.exec_module(module)


def main() -> None:
    """Use the extension, run the module."""
    path, name, *arguments = sys.argv[1:]
    use_extension(path)
    sys.argv = [name, *arguments]
    runpy.run_module(name, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
