"""The review session as Gymnasium environments."""
