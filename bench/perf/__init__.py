"""What a variant costs: time and live memory of its attention layer against fused softmax, and the goals for both."""
