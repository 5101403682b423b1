"""AI feedback: preferences of a judge, the reward fitted to them, and its effects."""
