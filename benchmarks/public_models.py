"""Other people's models as they are, and after `cellwise.convert`, which is all that changes.

    pip install stanza torchrl neuralforecast openunmix encodec
    python benchmarks/public_models.py [MODEL ...] --rounds 9

One thread, processor time, both sides in turns: the median of the ratios and their quartiles. Weights and inputs are
random, in the sizes that the packages train and run with; no model is fetched. Outputs of both sides are compared.
What is not installed is left out. DeepFilterNet's package asks for an older torch than it needs:

    pip install --no-deps deepfilternet deepfilterlib; pip install loguru
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import time
import types
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import cellwise

Step = Callable[[Any], Tensor]


def stanza_tokenizer() -> tuple[nn.Module, Step, bool]:
    """The tokenizer of Stanza with its own settings: two bidirectional LSTMs, 32 pieces of up to 100 characters."""
    from stanza.models.tokenization.model import Tokenizer

    options = {"feat_dim": 5, "rnn_layers": 1, "conv_res": None, "hierarchical": True, "use_mwt": True}
    options |= {"hier_invtemp": 0.5, "tok_noise": 0.02}
    model = Tokenizer(options, 100, 32, 64, 0.33, 0.05)
    lengths = sorted(torch.randint(50, 101, (32,)).tolist(), reverse=True)
    characters, features = torch.randint(1, 100, (32, lengths[0])), torch.rand(32, lengths[0], 5)
    return model, lambda model: model(characters, features, lengths), True


def torchrl_lstm() -> tuple[nn.Module, Step, bool]:
    """LSTMModule of TorchRL over 16 stretches of 100 steps in which episodes end: 64 inputs, 128 units."""
    from tensordict import TensorDict
    from torchrl.modules import LSTMModule, set_recurrent_mode

    model = LSTMModule(input_size=64, hidden_size=128, in_key="x", out_key="y")
    x, begins = torch.randn(16, 100, 64), torch.rand(16, 100, 1) < 0.02
    states = {f"recurrent_state_{letter}": torch.zeros(16, 100, 1, 128) for letter in "hc"}

    def step(model: Any) -> Tensor:
        given = TensorDict({"x": x, "is_init": begins, **states}, batch_size=[16, 100])
        with set_recurrent_mode(True):
            return model(given)["y"]

    return model, step, True


def neuralforecast_lstm() -> tuple[nn.Module, Step, bool]:
    """The LSTM of neuralforecast, two layers of 128 units: a week from ten weeks, 128 windows."""
    from neuralforecast.losses.pytorch import MAE
    from neuralforecast.models import LSTM

    model = LSTM(h=7, input_size=70, encoder_n_layers=2, encoder_hidden_size=128, loss=MAE(), max_steps=1)
    past = torch.randn(128, 70, 1)
    given = {"insample_y": past, "futr_exog": None, "hist_exog": None, "stat_exog": None}
    return model, lambda model: model(given), True


def openunmix() -> tuple[nn.Module, Step, bool]:
    """A separator of Open-Unmix: three bidirectional LSTMs of 256 units, 255 frames of one recording."""
    from openunmix.model import OpenUnmix

    model, sound = OpenUnmix(nb_bins=2049, max_bin=1487).eval(), torch.rand(1, 2, 2049, 255)
    return model, lambda model: model(sound), False


def encodec() -> tuple[nn.Module, Step, bool]:
    """The encoder of EnCodec, with two LSTMs of 512 units over 75 frames: a second of sound."""
    from encodec import EncodecModel

    sound = torch.randn(1, 1, 24_000)
    model = EncodecModel.encodec_model_24khz(pretrained=False).encoder.eval()
    return model, lambda model: model(sound), False


def deepfilternet() -> tuple[nn.Module, Step, bool]:
    """DeepFilterNet 3 in the sizes that its package has by default, three seconds of sound: 300 frames."""
    for name in (
        "torchaudio.backend",
        "torchaudio.backend.common",
    ):  # a type that later releases have no more
        sys.modules.setdefault(name, types.SimpleNamespace(AudioMetaData=None))  # type: ignore[arg-type]
    from df.config import config
    from df.deepfilternet3 import ModelParams, init_model

    config.use_defaults(allow_reload=True)
    sizes, frames = ModelParams(), 300
    spectrum = torch.randn(1, 1, frames, sizes.fft_size // 2 + 1, 2)
    bands, low = torch.randn(1, 1, frames, sizes.nb_erb), torch.randn(1, 1, frames, sizes.nb_df, 2)
    return init_model().eval(), lambda model: model(spectrum.clone(), bands, low)[0], False


MODELS = {
    "stanza": stanza_tokenizer,
    "torchrl": torchrl_lstm,
    "neuralforecast": neuralforecast_lstm,
    "openunmix": openunmix,
    "encodec": encodec,
    "deepfilternet": deepfilternet,
}


def seconds(model: nn.Module, step: Step, trains: bool) -> tuple[float, Tensor]:
    """Seconds of processor time of a call, or of a training step, and what came out."""
    torch.manual_seed(1)  # both sides drop the same
    begin = time.process_time()
    with torch.set_grad_enabled(trains):
        output = step(model)
        if trains:
            model.zero_grad()
            output.square().mean().backward()
    return time.process_time() - begin, output.detach()


def measure(name: str, rounds: int) -> None:
    """Print a model's row."""
    torch.manual_seed(0)
    theirs, step, trains = MODELS[name]()
    torch.manual_seed(0)  # made twice, since not every model can be copied
    ours = cellwise.convert(MODELS[name]()[0])
    for _ in range(3):  # kernels are compiled, auto has seen the call
        (_, wanted), (_, found) = seconds(theirs, step, trains), seconds(ours, step, trains)
    apart = float((found - wanted).abs().max() / wanted.abs().max())
    pairs = [(seconds(theirs, step, trains)[0], seconds(ours, step, trains)[0]) for _ in range(rounds)]
    ratios = [torchs / own for torchs, own in pairs]
    low, middle, high = statistics.quantiles(ratios, n=4)
    torchs, own = (1e3 * statistics.median(side) for side in zip(*pairs, strict=True))
    what = "training" if trains else "forward"
    print(
        f"{name:<15} {what:<9} {torchs:>9.1f} {own:>9.1f} {middle:>6.2f}   {low:.2f} to {high:.2f}   {apart:.0e}",
        flush=True,
    )


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(MODELS)}; else all")
    options.add_argument("--rounds", type=int, default=9)
    given = options.parse_args()
    unknown = next((name for name in given.models if name not in MODELS), None)
    if unknown is not None:
        options.error(f"there is no model {unknown!r}; there are: {', '.join(MODELS)}")
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    print(f"{'':<15} {'':<9} {'torch ms':>9} {'ours ms':>9} {'ratio':>6}   {'quartiles':<12}   apart")
    for name in given.models or MODELS:
        try:
            measure(name, given.rounds)
        except ModuleNotFoundError as error:
            print(f"{name:<15} left out: {error.name} is not installed")


if __name__ == "__main__":
    main()
