"""How flows are walked: what decisions need is found, their questions are answered, what follows is written down."""
