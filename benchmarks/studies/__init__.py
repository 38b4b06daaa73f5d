# SPDX-License-Identifier: Apache-2.0
"""Studies whose results the documentation quotes: ``python -m benchmarks.studies NAME``."""
