# SPDX-License-Identifier: Apache-2.0
"""The rows of a results file: one struct per kind of row, one module per wing.

    fields       field types and ``read_rows``, which checks rows against a struct
    document     the envelope of every file
    audit        inspect.json, card.json
    pilot        pilot.json
    spectrum     spectrum.json
    benchmark    table.json of the benchmark, attacks, demo

``Row.to_row`` gives the JSON of a row, ``read_rows`` reads it. A results file of schema version 1
keeps its field names; where a struct has another name than its JSON (``DetectorRow.flagged`` is
``raised``), its docstring says so.
"""
