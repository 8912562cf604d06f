"""The run file: a specification and one row for each finished piece of work. Never needs torch.

May import certificates, bounds, tallies, errors. The field's TSV dialects are read and written in ``tsv``.
"""

from smoothcert.runlog.merging import merge_shards
from smoothcert.runlog.reading import open_runs, results, tally_digest
from smoothcert.runlog.results import Outcome, Results
from smoothcert.runlog.shard import Shard
from smoothcert.runlog.specification import Specification
from smoothcert.runlog.store import RunReader, create_or_resume, open_run
from smoothcert.runlog.tsv import read_tsv, write_cohen_tsv
from smoothcert.runlog.verify import Verification, verify

__all__ = [
    "Outcome",
    "Results",
    "RunReader",
    "Shard",
    "Specification",
    "Verification",
    "create_or_resume",
    "merge_shards",
    "open_run",
    "open_runs",
    "read_tsv",
    "results",
    "tally_digest",
    "verify",
    "write_cohen_tsv",
]
