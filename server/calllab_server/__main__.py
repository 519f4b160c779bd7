"""``python -m calllab_server``."""

from __future__ import annotations

from calllab_server.cli import main

if __name__ == "__main__":
    main(prog_name="python -m calllab_server")
