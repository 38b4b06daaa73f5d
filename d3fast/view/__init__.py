# SPDX-License-Identifier: Apache-2.0
"""``d3fast view``: audits and benchmarks of a folder as read-only pages on loopback.

``folders`` finds what commands of d3fast wrote, ``entries`` summarises it, ``query`` reads an
address, ``pages`` and ``compare`` fill the templates, ``server`` answers requests. Pages are made
anew from the JSON documents, which may be hostile; no file of the folder is sent as it is.
"""
