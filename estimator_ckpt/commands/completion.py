"""usage: estimator-ckpt completion SHELL

Prints a script with which SHELL, bash, zsh or tcsh, completes verbs, flags, choices and paths; in
tcsh verbs and paths alone. What a flag takes is completed after a space, `--sort <TAB>`, not after
`--sort=`.

Examples:
  estimator-ckpt completion bash > ~/.local/share/bash-completion/completions/estimator-ckpt
  estimator-ckpt completion zsh > ~/.zsh/completions/_estimator-ckpt  # a directory of $fpath
  estimator-ckpt completion tcsh > ~/.estimator-ckpt.completion.csh  # for ~/.tcshrc to source
"""

from __future__ import annotations

from absl import flags

from estimator_ckpt.cli import EXIT_OK, UsageError
from estimator_ckpt.commands.parsers import command_parser, needs_package

CHOICES = ("bash", "zsh", "tcsh")
EXIT_CODES = {
    0: "printed",
    2: "an error: another shell, or shtab is not installed",
}


def define(flag_values: flags.FlagValues) -> None:
    """The verb has no flags."""


def run(arguments: list[str], flag_values: flags.FlagValues) -> int:
    """Prints the script of one shell."""
    if len(arguments) != 1 or arguments[0] not in CHOICES:
        found = " ".join(arguments) or "none"
        raise UsageError(f"completion: expected one of {', '.join(CHOICES)}, found {found}")
    try:
        import shtab
    except ModuleNotFoundError as error:
        raise needs_package("completion", error) from error
    print(shtab.complete(command_parser(file=shtab.FILE), shell=arguments[0]))
    return EXIT_OK
