"""Recurrent PPO of sb3-contrib on CartPole: its loop over steps, and cellwise's `resets=` in its place.

    pip install sb3-contrib
    python examples/recurrent_ppo.py

Where an episode ends inside a sequence, the state must begin at zero. torch's LSTM cannot do that, so sb3-contrib
calls it for each step by itself. A layer of cellwise takes the beginnings of episodes as `resets=`, and runs all steps
at once.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import torch
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy

import cellwise


class ResetsPolicy(RecurrentActorCriticPolicy):
    """The policy of sb3-contrib with one call where it has a loop."""

    @staticmethod
    def _process_sequence(features, states, episode_starts, lstm):
        rows = states[0].shape[1]
        features = features.reshape(rows, -1, lstm.input_size).swapaxes(0, 1)
        resets = episode_starts.reshape(rows, -1).swapaxes(0, 1) == 1
        output, states = lstm(features, states, resets=resets)
        return output.transpose(0, 1).flatten(0, 1), states


def make(policy: type[RecurrentActorCriticPolicy], seed: int) -> RecurrentPPO:
    """A fresh agent; that of cellwise has its two LSTMs converted, weights and optimizer as they were."""
    agent = RecurrentPPO(policy, "CartPole-v1", seed=seed, device="cpu")
    if policy is ResetsPolicy:
        cellwise.convert(agent.policy)
    return agent


def check() -> float:
    """How far values, log-probabilities and gradients of a batch in which episodes end are apart, relative to them."""
    torch.manual_seed(0)
    found = []
    observations, actions = torch.randn(256, 4), torch.randint(2, (256,))
    starts = (torch.rand(256) < 0.1).float()
    first = make(RecurrentActorCriticPolicy, 0).policy
    for policy in (first, make(ResetsPolicy, 0).policy):
        policy.load_state_dict(first.state_dict())
        zeros = torch.zeros(1, 2, 256)
        states = type("States", (), {"pi": (zeros, zeros), "vf": (zeros, zeros)})()
        values, chances, _ = policy.evaluate_actions(observations, actions, states, starts)
        gradients = torch.autograd.grad(
            values.sum() + chances.sum(), list(policy.parameters()), allow_unused=True
        )
        found.append([values.detach(), chances.detach(), *(each for each in gradients if each is not None)])
    return max(float((one - other).norm() / one.norm()) for one, other in zip(*found, strict=True))


def train(policy: type[RecurrentActorCriticPolicy], steps: int, seed: int) -> tuple[float, float]:
    """Seconds of processor time, and the mean reward of the last episodes."""
    agent = make(policy, seed)
    begin = time.process_time()
    agent.learn(steps)
    seconds = time.process_time() - begin
    rewards = [episode["r"] for episode in agent.ep_info_buffer]
    return seconds, sum(rewards) / len(rewards)


def main() -> None:
    """Train both in turn, and print the ratio of their times."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--steps", type=int, default=2048, help="steps of the environment in a training")
    options.add_argument("--rounds", type=int, default=3, help="trainings of each, in turn")
    given = options.parse_args()
    torch.set_num_threads(1)
    print(f"values and gradients of one batch are {check():.1e} apart")
    train(ResetsPolicy, 128, 0)  # kernels are compiled once, and kept on disk
    ratios = []
    for seed in range(given.rounds):
        loop, reward = train(RecurrentActorCriticPolicy, given.steps, seed)
        resets, ours = train(ResetsPolicy, given.steps, seed)
        ratios.append(loop / resets)
        print(
            f"seed {seed}: loop {loop:.1f} s, reward {reward:.1f}; resets {resets:.1f} s, reward {ours:.1f}",
            flush=True,
        )
    print(f"{median(ratios):.2f} times as fast (median of {len(ratios)}, processor time, one thread)")


if __name__ == "__main__":
    main()
