# SPDX-License-Identifier: Apache-2.0
"""Everything that opens a file from a stranger: size limits, no execution, printable errors."""
