"""Empirical checks: attackers that try to break a certificate, and judges that tell whether they did.

May import smoothing and all lower rooms. An attack that fails proves nothing about the model; one that
succeeds inside a certified radius, with evidence from draws it never saw, shows a false certificate.
"""

from smoothcert.attacks import aims
from smoothcert.attacks.answers import AnswerAttack, attack_answers, success_rate
from smoothcert.attacks.evidence import CosineEvidence, VoteEvidence, vote_evidence
from smoothcert.attacks.judge import judge_features, judge_votes
from smoothcert.attacks.perturb import Perturbed, attack_features, attack_votes, soft_votes
from smoothcert.attacks.search import Search

__all__ = [
    "AnswerAttack",
    "CosineEvidence",
    "Perturbed",
    "Search",
    "VoteEvidence",
    "aims",
    "attack_answers",
    "attack_features",
    "attack_votes",
    "judge_features",
    "judge_votes",
    "soft_votes",
    "success_rate",
    "vote_evidence",
]
