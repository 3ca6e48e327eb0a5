"""What says whether an adversarial number can be believed, measured on a model."""
