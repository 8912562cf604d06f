"""Tables of published papers as data, so that a run can be put beside them. One TOML file a table.

Cells are kept as printed ("(88.1)76.7", "-", "0.43*"), also where two tables of a paper disagree; notes in
the files say where. May import errors and the text tables of ``analysis``.
"""

from smoothcert.analysis.published.tables import PublishedCell, PublishedRow, PublishedTable, load, names

__all__ = ["PublishedCell", "PublishedRow", "PublishedTable", "load", "names"]
