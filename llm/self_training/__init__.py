"""Self-training: a language model learns from the best of its own episodes."""
