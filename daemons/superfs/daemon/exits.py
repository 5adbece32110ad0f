"""With which status daemons and their children end. Apart, because a child imports little else."""

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_IO = 75
"""After an I/O error: a restart verifies the store before it serves again."""
EXIT_CONFIG = 78
"""Configuration, identity, damage: a restart cannot help, and systemd is told not to try."""
