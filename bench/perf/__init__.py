"""What variants and attacks cost: time and memory beside fused softmax and torchattacks, and the goals for them."""
