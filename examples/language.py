"""Language: a character model of a text, which then generates text.

python examples/language.py --data input.txt             # Tiny Shakespeare: about ten minutes
python examples/language.py --data input.txt --characters 20000 --epochs 2 --hidden 64
"""

import argparse
import math

from cylstm.data.text_files import read_text
from cylstm.text import CharacterModel


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="a text in UTF-8")
    parser.add_argument("--characters", type=int, help="use only the first characters")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--prompt", default="ROMEO:\n")
    parser.add_argument("--plot", default="language.png", help="picture to write")
    options = parser.parse_args()

    text = read_text(options.data)[: options.characters]
    model = CharacterModel(options.hidden, seed=0)
    history = model.fit(text, options.epochs, lr=5e-3)
    nats = history.epochs[history.best_epoch - 1]["validation"]
    print(f"{nats:.3f} nats per character, a perplexity of {math.exp(nats):.2f}, on the last 10 %")
    history.plot(options.plot)
    print(f"Saved {options.plot}\n")
    for temperature in (0.5, 1.0):
        written = model.sample(options.prompt, 200, temperature=temperature, seed=0)
        print(f"-- temperature {temperature}\n{written}\n")


if __name__ == "__main__":
    main()
