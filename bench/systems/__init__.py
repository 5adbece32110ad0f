"""File systems that bench/compare.py sets up side by side: how to start each, what it uses, and how
to take it away again without a trace."""
