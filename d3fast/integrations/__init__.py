# SPDX-License-Identifier: Apache-2.0
"""Callbacks for other trainers; each module needs its trainer's package, d3fast needs none."""
