"""``python -m localrun``: the command line, also where its program is not on the PATH."""

if __name__ == "__main__":
    from localrun.cli.main import main

    main()
