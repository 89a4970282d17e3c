"""The review of one case as a durable LangGraph graph."""
