"""What monitoring sees: metrics, spans and lineage of tasks."""
