"""The theory of in-context learning by linear self-attention."""
