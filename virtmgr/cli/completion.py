"""``completion``: the script that makes a shell complete virtmgr's commands and names."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from virtmgr.cli.command import command

COMPLETE_VARIABLE = "_VIRTMGR_COMPLETE"


@command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for a shell.

    \b
    bash   source <(virtmgr completion bash)
    zsh    virtmgr completion zsh > "${fpath[1]}/_virtmgr"
    fish   virtmgr completion fish > ~/.config/fish/completions/virtmgr.fish
    """
    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"there is no completion for {shell}")
    click.echo(found(ctx.find_root().command, {}, "virtmgr", COMPLETE_VARIABLE).source())
