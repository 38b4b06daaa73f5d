# SPDX-License-Identifier: Apache-2.0
"""Runs of many cells, resumable: what ``d3fast benchmark`` measures."""
