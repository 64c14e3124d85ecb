"""Python imports this at its start where its folder is in PYTHONPATH: the fork server of a run is watched so too."""

import os

if "CHAOS_FOLDER" in os.environ:
    import kill_at

    kill_at.install()
