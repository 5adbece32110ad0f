"""Real daemons and real mounts for tests: started, watched, killed, and always cleaned up."""
