"""Completion by the shell: the scripts of bash, zsh and fish, and names that the daemon knows. Silent on errors."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

from corral.cli.session import Session
from corral.errors import CorralError

if TYPE_CHECKING:
    from corral.client import Client

# Whoever presses Tab waits for this long at most.
COMPLETION_TIMEOUT_S: Final = 1.0


def _session(ctx: click.Context) -> Session:
    """The daemon that the words before the cursor name; callbacks have not run while completing."""
    given = ctx.find_root().params
    return Session(
        socket=given.get("socket") or "",
        state_dir=given.get("state_dir") or "",
        url=given.get("url") or "",
        ca_file=given.get("ca_file") or "",
        project=given.get("project") or "",
        timeout_s=COMPLETION_TIMEOUT_S,
    )


def _complete(ctx: click.Context, incomplete: str, names: "Callable[[Client], list[str]]") -> list[str]:
    session = _session(ctx)
    try:
        found = names(session.client())
    except CorralError:
        return []
    finally:
        session.close()
    given = {word for value in ctx.params.values() if isinstance(value, tuple) for word in value}
    return [name for name in found if name.startswith(incomplete) and name not in given]


def complete_vm(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Names of VMs that are not on the line yet."""
    return _complete(ctx, incomplete, lambda client: [vm["name"] for vm in client.list_vms(fields="name")])


def complete_device(kind: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Names of the `disks` or `nics` of the VM that the line names before."""

    def complete(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
        def names(client: "Client") -> list[str]:
            spec: Any = client.get_vm(ctx.params.get("name") or "")["spec"]
            return [device["name"] for device in spec[kind]]

        return _complete(ctx, incomplete, names)

    return complete


def complete_snapshot(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Names of the snapshots of the VM that the line names before."""
    vm = str(ctx.params.get("vm") or "")
    return _complete(ctx, incomplete, lambda client: [found["name"] for found in client.list_snapshots(vm)])


def complete_image(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Names of images."""
    return _complete(ctx, incomplete, lambda client: [image["name"] for image in client.list_images()])


def complete_stack(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Names of stacks that have VMs."""
    label = "corral/stack"
    return _complete(
        ctx, incomplete, lambda client: sorted({vm["labels"][label] for vm in client.list_vms(selector=label)})
    )


def complete_network(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    return _complete(ctx, incomplete, lambda client: [network["name"] for network in client.list_networks()])


def complete_security_group(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    return _complete(ctx, incomplete, lambda client: [group["name"] for group in client.list_security_groups()])


def complete_network_policy(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    return _complete(ctx, incomplete, lambda client: [policy["name"] for policy in client.list_network_policies()])


def complete_router(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    return _complete(ctx, incomplete, lambda client: [router["name"] for router in client.list_routers()])


def complete_forward(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    return _complete(ctx, incomplete, lambda client: [forward["name"] for forward in client.list_forwards()])


def complete_address(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    return _complete(ctx, incomplete, lambda client: [address["name"] for address in client.list_addresses()])


def complete_balancer(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    return _complete(ctx, incomplete, lambda client: [balancer["name"] for balancer in client.list_balancers()])


def complete_volume(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    return _complete(ctx, incomplete, lambda client: [volume["name"] for volume in client.list_volumes()])


def complete_pool(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    return _complete(ctx, incomplete, lambda client: [pool["name"] for pool in client.list_pools()])


def complete_operation(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    return _complete(ctx, incomplete, lambda client: [operation["uid"] for operation in client.list_operations()])


def complete_domain(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    return _complete(ctx, incomplete, lambda client: [domain["name"] for domain in client.list_domains()])


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell. It completes commands, options and names of VMs, images and more.

    \b
    Examples:
      corral completion bash > /etc/bash_completion.d/corral
      source <(corral completion bash)
      corral completion zsh > ~/.zfunc/_corral
      corral completion fish > ~/.config/fish/completions/corral.fish
    """
    from click.shell_completion import ShellComplete, get_completion_class

    root = ctx.find_root().command
    shell_class = get_completion_class(shell)
    assert shell_class is not None
    # click's own bash class would start bash to ask for its version; the script alone is all that is wanted.
    click.echo(ShellComplete.source(shell_class(root, {}, "corral", "_CORRAL_COMPLETE")))
