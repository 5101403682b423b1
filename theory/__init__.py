"""In-context regression by linear self-attention: gradient flow, risk, bounds."""
