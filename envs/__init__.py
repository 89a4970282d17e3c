"""The review session as Gymnasium environments; importing registers their ids."""

from gymnasium.envs.registration import register

for _name, _rules in (
    ("CaseReviewOneShot", "oneshot"),
    ("CaseReviewSequential", "sequential"),
    ("CaseReview", "worklist"),
):
    register(
        id=f"greenboard/{_name}-v1",
        entry_point="envs.case_review:CaseReviewEnv",
        vector_entry_point="envs.vector:CaseReviewVectorEnv",
        kwargs={"rules": _rules},
    )
