"""The options of a vision-language model, and its client made of them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from tiling.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tiling.progress import CancelToken
    from training.builder.vlm import Client
    from training.builder.vlm_steps import Prompts


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a vision-language model; nothing is sent without ``--endpoint``."""
    options = (
        click.option("--endpoint", default=None, help="Ask the model at this OpenAI-compatible address."),
        click.option("--model", default=None, help="Name of the model at the endpoint."),
        click.option("--prompts", type=click.Path(file_okay=False, path_type=Path), default=None,
                     help="Folder with prompt templates of your own."),
        click.option("--cache", type=click.Path(path_type=Path), default=None,
                     help="SQLite file of answers [answers.sqlite beside --out]."),
        click.option("--max-cost", type=click.FloatRange(min=0), default=None, help="Stop before more is spent."),
        click.option("--price", type=(float, float), default=(0.0, 0.0), metavar="PROMPT COMPLETION",
                     help="Prices per million tokens."),
        click.option("--requests-per-minute", type=click.IntRange(min=1), default=None, help="Limit of requests."),
        click.option("--tokens-per-minute", type=click.IntRange(min=1), default=None, help="Limit of tokens."),
        click.option("--image-px", type=click.IntRange(min=32), default=1024, show_default=True,
                     help="Longest side of the picture that is sent."),
        click.option("--json-mode", type=click.Choice(["schema", "object", "none"]), default="schema",
                     show_default=True, help="How the server is asked for JSON."),
        click.option("--timeout", type=click.FloatRange(min=1), default=120.0, show_default=True, help="Seconds."),
        click.option("--retries", type=click.IntRange(min=0), default=6, show_default=True,
                     help="Tries after the first, for a busy server."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def _given(options: Iterable[str]) -> list[str]:
    """Return those of the model's options that the command line names."""
    context = click.get_current_context()
    names = set(options)
    return [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name in names and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    ]


@contextlib.contextmanager
def asking(out: Path, cancel: CancelToken, options: dict[str, Any]) -> Iterator[tuple[Client, Prompts] | None]:
    """Give the model's client, or None without an endpoint; tell at the end what was spent.

    Raises:
        UsageError: An option of the model is given without the endpoint, or the endpoint without the model.
    """
    if options["endpoint"] is None:
        if given := _given(options):
            raise UsageError(
                "no model is asked without an endpoint", measured=", ".join(given),
                remedy="add --endpoint URL, or leave these options out to have the rules write",
            )  # fmt: skip
        yield None
        return
    if options["model"] is None:
        raise UsageError("which model shall be asked?", remedy="give --model NAME")
    from training.builder.vlm import KEY_VARIABLE, Client, Endpoint
    from training.builder.vlm_cache import AnswerCache
    from training.builder.vlm_limits import Prices
    from training.builder.vlm_steps import Prompts

    endpoint = Endpoint(
        url=options["endpoint"], model=options["model"], key=os.environ.get(KEY_VARIABLE) or None,
        image_px=options["image_px"], json_mode=options["json_mode"], timeout_s=options["timeout"],
        retries=options["retries"], requests_per_minute=options["requests_per_minute"],
        tokens_per_minute=options["tokens_per_minute"], prices=Prices(*options["price"]),
        max_cost=options["max_cost"],
    )  # fmt: skip
    if endpoint.is_exposed():
        click.echo("warning: pictures and key go over plain http to another machine; use https if you can", err=True)
    prompts = Prompts.load(options["prompts"])
    cache = AnswerCache(options["cache"] or out.parent / "answers.sqlite")
    try:
        client = Client(endpoint, cache, repair=prompts.texts["repair"], cancel=cancel)
        try:
            yield client, prompts
        finally:
            client.close()
            replies, prompt_tokens, completion_tokens, cost = cache.totals()
            click.echo(
                f"{replies} replies so far, {prompt_tokens} + {completion_tokens} tokens, cost {cost:.4f}", err=True
            )
    finally:
        cache.close()
