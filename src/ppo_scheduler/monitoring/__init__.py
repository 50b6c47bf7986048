"""What a person sees while training: log, progress, TensorBoard, CSV, tail latencies."""
