"""The review session as Gymnasium environments; importing registers their ids."""

from gymnasium.envs.registration import register

register(
    id="greenboard/CaseReviewSequential-v1",
    entry_point="envs.case_review:CaseReviewSequentialEnv",
    vector_entry_point="envs.vector:CaseReviewSequentialVectorEnv",
)
