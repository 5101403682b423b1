"""Sequential decision making with language models: oracles, fine-tuning, evaluation."""

__version__ = "0.2.0"
