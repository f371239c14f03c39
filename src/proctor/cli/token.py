"""`proctor token create`."""

import asyncio

import click

from proctor.cli.client import Access, open_client


def create_token(access: Access, label: str, days: int | None) -> None:
    """Prints the token alone on stdout, so that a script can take it."""

    async def create() -> str:
        async with open_client(access) as client:
            return await client.create_token(label, days)

    token = asyncio.run(create())
    click.echo("This token stands for you, and is shown this once:", err=True)
    click.echo(token)
