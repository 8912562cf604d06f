"""What is observed and stored: counts of draws, pilot features, sums of scores. Frozen, addable, mergeable.

Imports errors only.
"""

from smoothcert.tallies.features import Features
from smoothcert.tallies.scores import Scores
from smoothcert.tallies.tally import Tally, merged, tally_from_json
from smoothcert.tallies.votes import Votes

__all__ = ["Features", "Scores", "Tally", "Votes", "merged", "tally_from_json"]
