"""`python -m animalclf` is the command `animalclf`."""

from animalclf.cli import run_and_exit

if __name__ == "__main__":
    run_and_exit()
