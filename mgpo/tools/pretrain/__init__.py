"""`python -m mgpo pretrain`: the embedded base model, made until it is where reinforcement starts."""
