"""The engine's HTTP endpoints, grouped by what they are about; none decides anything itself."""
