# SPDX-License-Identifier: Apache-2.0
"""Runs of many jobs, resumable: what ``d3fast benchmark`` measures."""
