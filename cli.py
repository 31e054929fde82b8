"""python cli.py COMMAND ...: the same as the console script `leyden`."""

from leyden.main import main

if __name__ == "__main__":
    raise SystemExit(main())
