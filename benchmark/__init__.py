"""The engine: specification -> cells -> results. It knows no method by name."""
