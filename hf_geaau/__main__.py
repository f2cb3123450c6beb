"""`python -m hf_geaau` is `hf-geaau`."""

from hf_geaau_cli import main

if __name__ == "__main__":
    main()
