"""`python -m streamlearn` is the command line."""

from streamlearn.cli import main

main()
