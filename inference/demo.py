"""``python -m inference demo``: a page where a picture is dropped, class names are edited, and scores are seen."""

from __future__ import annotations

import argparse
import os
from functools import lru_cache
from typing import Any

from inference.options import add_run_arguments, at_least, open_classifier

__all__ = ["add_arguments", "make_page", "run"]

FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}  # none from the internet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser)
    parser.add_argument("--top-k", type=at_least(1), default=5, metavar="K", help="classes that are shown (5)")
    parser.add_argument("--host", default="127.0.0.1", help="address to serve at (127.0.0.1: this machine alone)")
    parser.add_argument("--port", type=at_least(1), default=7860, help="port to serve at (7860)")


def run(args: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C.

    Raises:
        ImportError: gradio is not installed.
        OSError: the port is taken.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # which gradio reads when it is imported
    try:
        import gradio
    except ImportError as error:
        raise ImportError(
            f"the demo needs gradio ({error}). Install it: .venv/bin/python -m pip install 'gradio>=6'"
        ) from error
    page = make_page(open_classifier(args), args.top_k)
    page.launch(
        server_name=args.host,
        server_port=args.port,
        theme=gradio.themes.Default(**FONTS),
        share=False,
        footer_links=[],
    )
    return 0


def make_page(classifier: Any, top_k: int) -> Any:
    """The page of a `Classifier`: a picture and class names, one per line, to the `top_k` best classes."""
    import gradio

    own = tuple(classifier.classnames)

    @lru_cache(maxsize=4)
    def for_names(names: tuple[str, ...]) -> Any:
        return classifier if names == own else classifier.with_classes(names)

    def scores(picture: str | None, lines: str) -> dict[str, float] | None:
        if picture is None:
            return None
        names = tuple(line.strip() for line in lines.splitlines() if line.strip())
        try:
            return {one.classname: one.score for one in for_names(names).predict(picture, top_k)[0]}
        except (ValueError, OSError) as error:
            raise gradio.Error(str(error)) from error

    name = f"{classifier.trainer_name} on {classifier.run.cfg.DATASET.NAME}"
    with gradio.Blocks(title=name, analytics_enabled=False) as page:
        gradio.Markdown(f"# {name}\nA score is the probability of a class among those that are named.")
        with gradio.Row():
            # In its own mode the picture stays the file that was dropped
            picture = gradio.Image(type="filepath", image_mode=None, sources=["upload", "clipboard"], label="Picture")
            names = gradio.Textbox("\n".join(own), lines=12, max_lines=12, label="Class names, one per line")
            label = gradio.Label(num_top_classes=top_k, label="Scores")
        for changed in (picture.change, names.blur):
            changed(scores, [picture, names], label, api_name=False)
    return page
