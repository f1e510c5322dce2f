"""The subcommands of `gradtui`: each is one module `cli_NAME`, with its parser and what it does.

Such a module has `add_parser(commands, is_given)`, which adds the parser to what `ArgumentParser.add_subparsers` gave,
and sets `run`, a function of the parsed arguments that returns the exit code. `is_given` is False if the command is
not among the words of the command line: then its flags need not be loaded. What a command needs beyond the standard
library is imported when it runs.
"""
