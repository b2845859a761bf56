"""`netlathe recipes`: published training recipes, and the source and settings of each."""

from __future__ import annotations

import inspect
from dataclasses import asdict
from typing import Annotated, Any

import typer

from netlathe.cli.console import Terminal
from netlathe.cli.options import Json


def recipes(
    name: Annotated[str, typer.Argument(help="Recipe whose source and settings to show.")] = "",
    as_json: Json = False,
) -> None:
    """List the published training recipes for --recipe, or show one's source, differences and settings."""
    from netlathe.training.recipe_names import check_recipe

    if name:
        check_recipe(name)
    from netlathe.training.recipes import RECIPES, training_recipe  # which imports torch

    terminal = Terminal(as_json=as_json)
    if name:
        found = _to_json(name, training_recipe(name))
        terminal.step(name)
        for paragraph in found["told"].split("\n\n"):
            terminal.say(f"  {' '.join(paragraph.split())}")
        settings = dict(found["settings"])
        settings |= settings.pop("augmentation")
        rows = [
            (setting.replace("_", " "), _in_words(value)) for setting, value in settings.items() if setting != "recipe"
        ]
        terminal.table(("setting", "value"), rows, numbers=False)
        terminal.result(found)
        return
    all_found = {one: training_recipe(one) for one in RECIPES}
    columns = ("name", "for", "epochs", "batch", "optimizer", "learning rate", "beyond crops and mirrors")
    table = [
        (
            one, _first_sentence(type(config)), config.epochs, config.batch_size, config.optimizer,
            f"{config.learning_rate:g}", ", ".join(parts_of(config)) or "-",
        )
        for one, config in all_found.items()
    ]  # fmt: skip
    terminal.table(columns, table, numbers=False)
    terminal.say("  `netlathe recipes NAME` shows its source and all settings; --recipe takes the name.", style="dim")
    terminal.result({"recipes": [_to_json(one, config) for one, config in all_found.items()]})


def parts_of(config: Any) -> list[str]:
    """Parts of a recipe beyond crops and mirrors, in words."""
    own = config.augmentation
    return [
        words
        for words, is_there in (
            ("color jitter", any(own.color_jitter)), ("RandAugment", own.policy == "randaugment"),
            ("TrivialAugment", own.policy == "trivialaugment"), ("erasing", own.erasing), ("mixup", own.mixup),
            ("cutmix", own.cutmix), ("label smoothing", config.label_smoothing), ("drop path", config.drop_path),
            ("dropout", config.dropout), ("EMA", config.ema_decay), ("smaller images", min(config.resolutions) < 1),
        )
        if is_there
    ]  # fmt: skip


def _in_words(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_in_words, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _first_sentence(kind: type) -> str:
    return (inspect.getdoc(kind) or "").partition(":")[0]


def _to_json(name: str, config: Any) -> dict[str, Any]:
    return {"name": name, "told": inspect.getdoc(type(config)) or "", "settings": asdict(config)}
