# SPDX-License-Identifier: Apache-2.0
"""Checks on a machine with a GPU: ``make gpu-check``."""
