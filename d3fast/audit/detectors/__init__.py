# SPDX-License-Identifier: Apache-2.0
"""Detectors of backdoors in one checkpoint, one file each, and their registry."""
