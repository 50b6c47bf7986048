"""What steers learning from outside the gradient: statistics, temperature, guard, curriculum."""
