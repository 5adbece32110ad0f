"""Where rows come from: files on SuperFS or any directory, cut into splits, parsed into frames."""
