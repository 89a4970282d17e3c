"""``python -m api.cli``: the ``greenboard`` command where the script is not on the path."""

from __future__ import annotations

from api.cli.main import main

if __name__ == "__main__":
    main()
