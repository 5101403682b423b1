"""Language models as policies: text, fine-tuning, acting and evaluation."""
