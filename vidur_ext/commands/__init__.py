"""The subcommands of ``vidur-ppo``."""
