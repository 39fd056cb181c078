"""A trained run put to use: classify pictures with it, and more."""

import argparse
from importlib import import_module

from dassl.interpreter import require_python

with require_python():
    from dassl.utils import command
    from dassl.utils.console import prepare_console

EXAMPLES = """\
examples, with the run that `bash scripts/maple/base2new_train_maple.sh emoji 1` makes:
  RUN=output/base2new/train_base/emoji/shots_16/MaPLe/vit_micro/seed1
  python -m inference predict $RUN datasets/emoji_data/images/bird
  python -m inference predict $RUN photos/*.jpg --classes cat dog "guinea pig" --output found.csv
  find photos -name '*.png' | python -m inference predict $RUN - --format json
  python -m inference cost $RUN
  python -m inference cost configs/trainers/MaPLe/vit_b16_c2_ep5_batch4_2ctx.yaml --num-classes 50
  python -m inference export $RUN --format onnx bundle --int8
  python -m inference interpret $RUN

A score is the softmax probability of a class among those that are asked for. docs/INFERENCE.md has more."""

COMMANDS = {  # each a module with add_arguments(parser) and run(args)
    "predict": "the classes of pictures, with scores",
    "demo": "a page in the browser: drop a picture, edit class names, see scores",
    "cost": "parameters, operations, speed and memory of a run or a file of settings",
    "export": "the run as ONNX, TorchScript, torch.export or a bundle of safetensors",
    "interpret": "a page on what was learned: nearest words, features, attention, confused classes",
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "python -m inference", description=__doc__, epilog=EXAMPLES, formatter_class=layout
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text)
        import_module(f"inference.{name}").add_arguments(sub)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run; returns 2, with one message, for errors that the user can fix."""
    prepare_console()
    args = parse_args(argv)
    try:
        return import_module(f"inference.{args.command}").run(args)
    except Exception as error:
        return command.fail(error)


if __name__ == "__main__":
    command.run(main)
