"""Where rows go: parts in an attempt beside the target, which one rename makes visible."""
