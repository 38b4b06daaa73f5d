# SPDX-License-Identifier: Apache-2.0
"""Callbacks for trainers of others; each module needs its trainer's package, d3fast needs none."""
