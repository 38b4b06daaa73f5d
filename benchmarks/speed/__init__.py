# SPDX-License-Identifier: Apache-2.0
"""Speed of a step and of a whole repair: ``make bench``; options in ``benchmarks/conftest.py``."""
