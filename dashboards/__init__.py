"""Live pages, an explorer of runs, and boards for Grafana: not built yet."""
