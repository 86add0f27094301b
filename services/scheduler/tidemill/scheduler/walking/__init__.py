"""How flows are walked: what a decision needs is found, its questions are answered, and what follows is written down."""
