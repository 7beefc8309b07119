"""`python -m mgpo fit | validate | test | predict | export | study | pretrain`."""

from mgpo.cli import main

if __name__ == "__main__":
    main()
