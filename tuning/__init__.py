"""Studies over the loss weights: trials that are trainings, and what was learnt from them."""
