"""The manager: owns the graph, the files' whereabouts and every decision."""
