"""What happens inside one process: a set is distilled, a student trained, an artefact made."""
