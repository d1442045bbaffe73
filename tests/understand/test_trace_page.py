"""The page in a real browser: it shows the numbers that were recorded, answers mouse, keyboard and address, and
asks no network for anything."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import polars
import pytest
import torch
from browser import Browser, browser, needs_browser
from test_trace_forecast import frame_of

from cellwise import Recurrent
from cellwise.tasks import CharacterModel, Forecaster
from cellwise.tasks.text.corpus import bundled_text
from cellwise.understand.trace import record, sensitivity
from cellwise.understand.trace.characters import characters_page
from cellwise.understand.trace.errors import TraceError
from cellwise.understand.trace.forecast import forecast_page
from cellwise.understand.trace.packing import LEVELS, Fit, Packed, fitting, pack_shares, pack_signal, roots
from cellwise.understand.trace.page import Dependence, Page, TracedLayer, render
from cellwise.understand.trace.run import write_page

STEPS = 120


@pytest.fixture(scope="module")
def model() -> CharacterModel:
    # What would end the data of the page early is a text like any other.
    text = "</script><b>&amp;" + bundled_text()[:12_000] + "</script><b>&amp;"
    return CharacterModel("lstm", hidden_size=20, embedding_size=6, num_layers=2, epochs=1, length=40).fit(
        text
    )


@pytest.fixture(scope="module")
def passage(model: CharacterModel) -> str:
    return model.held_out_[-STEPS:]


@pytest.fixture(scope="module")
def characters_file(model: CharacterModel, passage: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "trace.html"
    write_page(characters_page(model, passage, "a test"), path)
    return path


@pytest.fixture(scope="module")
def forecaster() -> Forecaster:
    return Forecaster(horizon=5, hidden_size=8, epochs=1, ensemble=False).fit(frame_of(90))


@pytest.fixture(scope="module")
def forecast_file(forecaster: Forecaster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "trace.html"
    write_page(forecast_page(forecaster, forecaster.table_), path)
    return path


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as made:
        yield made


@pytest.fixture
def reading(chromium: Browser, characters_file: Path) -> Iterator[Browser]:
    """The page of characters at step 60; afterwards nothing may have gone wrong in it."""
    del chromium.complaints[:], chromium.requests[:]
    chromium.open(characters_file, "#step=60")
    yield chromium
    assert chromium.complaints == []
    assert all(address.startswith(("file://", "about:", "data:")) for address in chromium.requests)


@needs_browser
def test_the_browser_holds_the_recorded_numbers(
    reading: Browser, model: CharacterModel, passage: str
) -> None:
    places = torch.tensor([model.characters_.index(each) for each in passage])
    network = model.network_
    with torch.no_grad():
        recording = record(network.layer, network.embed(places))
    for number, layer in enumerate(recording.layers):
        for signal in layer.signals:
            shown = np.array(
                reading.run(
                    f"(() => {{ const layer = app.data.layers[{number}];"
                    f" const signal = layer.signals.find((each) => each.name === '{signal.name}');"
                    " return layer.units.map((_, place) => app.data.labels.map((_, t) =>"
                    " signalValue(app.data, signal, place, t))); })()"
                )
            )
            low, high = signal.bounds or (-float(signal.values.abs().max()), float(signal.values.abs().max()))
            assert np.abs(shown.T - signal.values.numpy()).max() <= 0.5001 * (high - low) / 254


@needs_browser
def test_the_browser_holds_the_dependences(reading: Browser, model: CharacterModel, passage: str) -> None:
    places = torch.tensor([model.characters_.index(each) for each in passage])
    network = model.network_
    with torch.no_grad():
        recording = record(network.layer, network.embed(places))
        expected = network.decode(recording.output).argmax(-1)
    values = sensitivity(recording, network.decode.weight.detach()[expected][None])[0]
    for step in (0, 60, STEPS - 1):
        row = reading.run(f"(() => {{ const row = dependenceRow(app.data, 0, 0, {step});"
                          " return Array.from(row.shares, (share) => share * row.largest); })()")  # fmt: skip
        np.testing.assert_allclose(row, values[step].numpy(), atol=0.01 * float(values[step].max()))


@needs_browser
def test_the_address_chooses(reading: Browser, characters_file: Path, passage: str) -> None:
    assert reading.text("#step-name") == f"61 of {STEPS}"
    assert reading.run("document.querySelector('#reader .now').dataset.step") == "60"
    reading.open(characters_file, "#step=7&signal=f&layer=1&order=as stored&unit=3&shade=unit&target=1")
    assert reading.text("#step-name") == f"8 of {STEPS}"
    assert reading.run("document.querySelector('input[name=signal]:checked').value") == "f"
    assert "f, a gate, of 20 units" in reading.run(
        "document.getElementById('canvas').getAttribute('aria-label')"
    )
    assert reading.text("#values tbody th") == "unit 3"
    assert "Shaded by f of unit 3" in reading.text("#meaning")
    reading.open(characters_file, "#step=999&signal=nonsense&unit=-4&layer=9&order=none&target=x")
    assert reading.text("#step-name") == f"{STEPS} of {STEPS}"


@needs_browser
def test_it_expects_what_the_model_predicts(reading: Browser, model: CharacterModel, passage: str) -> None:
    chances = list(model.predict(passage[:61]).items())[:6]
    shown = reading.run("app.data.suggestions[60]")
    assert list(shown[0]) == [character for character, _ in chances]
    np.testing.assert_allclose(shown[1], [chance for _, chance in chances], atol=1e-4)
    bars = reading.run("[...document.querySelectorAll('#expects .sign')].map((each) => each.textContent)")
    assert bars[0] == {" ": "␣", "\n": "¶"}.get(chances[0][0], chances[0][0])
    assert "✓ came" in reading.text("#expects")


@needs_browser
def test_the_mouse_looks_and_a_click_keeps(reading: Browser) -> None:
    reading.mouse(*reading.place("#reader span[data-step='30']"))
    assert reading.text("#step-name") == f"31 of {STEPS}"
    shaded = "[...document.querySelectorAll('#reader span')].filter((each) => each.style.backgroundColor)"
    steps = reading.run(f"{shaded}.map((each) => Number(each.dataset.step))")
    assert steps and max(steps) <= 30
    reading.mouse(5, 5)
    assert reading.text("#step-name") == f"61 of {STEPS}"
    reading.click("#reader span[data-step='30']")
    reading.mouse(5, 5)
    assert reading.text("#step-name") == f"31 of {STEPS}"
    assert "step=30" in reading.run("location.hash")


@needs_browser
def test_the_keyboard_does_it_all(reading: Browser) -> None:
    reading.run("document.getElementById('reader').focus()")
    presses = {"ArrowRight": 61, "ArrowLeft": 60, "PageDown": 70, "PageUp": 60, "End": STEPS - 1, "Home": 0}
    for key, step in presses.items():
        reading.key(key)
        assert reading.run("app.state.step") == step, key
        assert f"Step {step + 1} of {STEPS}." in reading.text("#said")
    reading.key("ArrowLeft")
    assert reading.run("app.state.step") == 0
    reading.run("document.getElementById('step').focus()")
    reading.key("ArrowRight")
    assert reading.run("app.state.step") == 1
    reading.run("document.getElementById('heat').focus()")
    before = reading.run("app.heatOrder().indexOf(app.state.unit)")
    reading.key("ArrowDown")
    assert reading.run("app.heatOrder().indexOf(app.state.unit)") == before + 1
    reading.run("document.querySelector('input[name=signal]:checked').focus()")
    reading.key("ArrowRight")
    assert reading.run("app.state.signal") == "c"


@needs_browser
def test_the_heat_map_shows_the_chosen_signal_and_order(reading: Browser) -> None:
    def pixels() -> list[int]:
        script = "Array.from(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data)"
        return reading.run(
            f"(() => {{ const canvas = document.getElementById('canvas'); return {script}; }})()"
        )

    first = np.array(pixels()).reshape(20, STEPS, 4)
    reading.click("input[name=order][value='as stored']")
    stored = np.array(pixels()).reshape(20, STEPS, 4)
    order = reading.run("app.layer.orders['alike together']")
    assert sorted(order) == list(range(20)) and order != list(range(20))
    assert np.array_equal(first, stored[order])
    reading.click("input[name=signal][value='o']")
    assert not np.array_equal(np.array(pixels()).reshape(stored.shape), stored)
    reading.click("input[name=layer][value='1']")
    assert "layer=1" in reading.run("location.hash")


@needs_browser
def test_pointing_at_the_heat_map_chooses_step_and_unit(reading: Browser) -> None:
    reading.click("input[name=zoom][value='whole']")
    x, y = reading.place("#canvas")
    reading.mouse(x, y, click=True)
    assert abs(reading.run("app.state.step") - STEPS // 2) <= 1
    line = reading.run("app.heatOrder().indexOf(app.state.unit)")
    assert line in (9, 10)


@needs_browser
def test_dark_is_drawn_with_other_colours(chromium: Browser, characters_file: Path) -> None:
    corner = "Array.from(document.getElementById('scale').getContext('2d').getImageData(64, 0, 1, 1).data)"
    found = []
    for dark in (False, True):
        chromium.open(characters_file, dark=dark)
        found.append(chromium.run(corner))
        assert chromium.run("getComputedStyle(document.body).backgroundColor") == (
            "rgb(18, 22, 28)" if dark else "rgb(255, 255, 255)"
        )
    assert sum(found[0]) > sum(found[1])


@needs_browser
def test_every_control_has_a_name(reading: Browser) -> None:
    tree = reading.send("Accessibility.getFullAXTree")["nodes"]
    seen = {}
    for node in tree:
        role = node.get("role", {}).get("value")
        if role in ("slider", "radio", "image", "combobox", "group", "radiogroup") and not node.get(
            "ignored"
        ):
            seen.setdefault(role, []).append(node.get("name", {}).get("value", ""))
    assert {"slider", "radio"} <= seen.keys() and {"image", "img"} & (seen.keys() | {"img"})
    for role, names in seen.items():
        assert all(names), (role, names)


@needs_browser
def test_a_forecast_in_the_browser(chromium: Browser, forecast_file: Path, forecaster: Forecaster) -> None:
    del chromium.complaints[:]
    chromium.open(forecast_file, "#target=2")
    made = forecaster.predict()
    assert chromium.text("#step-name") == "2024-03-30"
    assert chromium.text("#expects tr:first-child td") == str(made["ds"][2])
    shown = float(chromium.text("#expects tr:nth-child(2) td"))
    assert shown == pytest.approx(made["GRU"][2], rel=1e-3)
    bars = "document.querySelectorAll('#reader rect').length"
    assert chromium.run(bars) > 20
    chromium.mouse(*chromium.place("#reader"))
    assert chromium.text("#step-name") < "2024-03-01"
    chromium.mouse(5, 5)
    chromium.click("input[name=about][value='1']")
    assert chromium.run("document.querySelectorAll('#reader rect.down').length") == 0
    assert "norm of the gradient" in chromium.text("#meaning")
    assert unquote(chromium.run("location.hash")).count("about=1") == 1
    # The heat map stands under the chart, step under step.
    left = chromium.run("document.getElementById('canvas').getBoundingClientRect().left")
    first = chromium.run("document.getElementById('reader').getBoundingClientRect().left + app.reader.left")
    assert left == pytest.approx(first, abs=0.5)
    assert chromium.complaints == []


@needs_browser
def test_the_largest_page_stays_small_and_quick(chromium: Browser, tmp_path: Path) -> None:
    T, H = 2000, 256
    layer = Recurrent("lstm", 4, H)
    recording = record(layer, torch.randn(T, 4))
    age = torch.arange(T)[:, None] - torch.arange(T)
    values = torch.rand(2, T, T) * torch.exp(-age / 300).masked_fill(age < 0, 0.0)
    reader = {"suggestions": [["ab", [0.6, 0.4]]] * T, "chances": [0.5] * (T - 1)}
    page = Page("characters", "Large", "", "", "LSTM", list("ab" * (T // 2)), [TracedLayer("", recording.layers[0])],
                ["one", "other"], [Dependence("x", "y", values)], reader, start=T - 1)  # fmt: skip
    write_page(page, tmp_path / "large.html")
    assert (tmp_path / "large.html").stat().st_size < 3_000_000
    chromium.open(tmp_path / "large.html")
    milliseconds = chromium.run(
        "(() => { const start = performance.now(); for (let i = 0; i < 10; i++) { app.state.step = 1990 - i;"
        " app.showStep(); } return (performance.now() - start) / 10; })()"
    )
    assert milliseconds < 250  # some 10 on an idle machine


def test_the_page_names_no_other_place(characters_file: Path, forecast_file: Path) -> None:
    for path in (characters_file, forecast_file):
        text = path.read_text("utf8")
        body = text.replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in body and "https:" not in body and "src=" not in body and "@import" not in body
        assert "default-src 'none'" in text


def data_of(html: str) -> dict[str, Any]:
    """What the page carries, as a browser cuts it out."""
    begin = html.index('id="data">') + len('id="data">')
    return json.loads(html[begin : html.index("</script>", begin)])


def test_names_and_texts_cannot_break_out_of_the_page(characters_file: Path, passage: str) -> None:
    assert "".join(data_of(characters_file.read_text("utf8"))["labels"]) == passage
    recording = record(Recurrent("gru", 2, 3), torch.randn(2, 2))
    wild = "</script><b>&amp;<!--"
    page = Page("forecast", wild, wild, wild, wild, [wild, "b"], [TracedLayer(wild, recording.layers[0])],
                [wild], [Dependence(wild, wild, torch.zeros(1, 2, 2))], {"future": [wild]}, start=0)  # fmt: skip
    html = render(page)
    assert data_of(html)["labels"] == [wild, "b"]
    assert wild not in html and "&lt;/script&gt;&lt;b&gt;&amp;amp;" in html


def test_unknown_characters_are_told(model: CharacterModel) -> None:
    page = characters_page(model, "Whale €€ ☃", "a test")
    assert any("3 characters of the text do not occur" in note and "€ ☃" in note for note in page.notes)
    with pytest.raises(TraceError, match="knows none of the characters"):
        characters_page(model, "☃☃☃", "a test")
    with pytest.raises(TraceError, match="shows 2 to 2,000 characters; this text has 1"):
        characters_page(model, "a", "a test")


def test_the_finest_numbers_that_fit_are_taken() -> None:
    values = torch.rand(50, 8)

    def pack(levels: int) -> list[Packed]:
        return [pack_signal(values, 0.0, 1.0, levels)]

    sizes = [len(pack(levels)[0].data) for levels in LEVELS]
    assert sizes == sorted(sizes, reverse=True)
    for levels, size in zip(LEVELS, sizes, strict=True):
        assert fitting(pack, size) == Fit(pack(levels), 1.0)
    assert fitting(pack, sizes[-1] // 2).room == pytest.approx(0.5, abs=0.01)


def test_small_dependences_keep_digits() -> None:
    shares = roots(torch.tensor([[[-4.0, 1.0], [0.0, 0.0]]]), torch.tensor([[4.0, 0.0]]))
    assert list(zlib.decompress(pack_shares(shares, True, 254).data)) == [0, 190, 127, 127]
    assert list(zlib.decompress(pack_shares(shares.abs(), False, 254).data)) == [254, 127, 0, 0]


def test_what_does_not_fit_is_left_out_and_said() -> None:
    torch.manual_seed(0)
    recording = record(Recurrent("lstm", 4, 400), 3 * torch.randn(2000, 4))
    values = torch.rand(1, 2000, 2000).tril()
    page = Page("characters", "Large", "", "", "LSTM", list("ab" * 1000), [TracedLayer("", recording.layers[0])],
                ["one"], [Dependence("x", "y", values)], {"suggestions": [], "chances": []}, start=0)  # fmt: skip
    html = render(page)
    assert len(html) < 3_000_000
    assert "Of the 400 units of a layer the" in html
    assert "values are rounded to" in html
    assert "Only the last" in html


def test_a_network_that_diverged_is_told() -> None:
    recording = record(Recurrent("gru", 2, 3), torch.randn(4, 2))
    values = torch.zeros(1, 4, 4)
    values[0, 3, 1] = torch.nan
    page = Page("characters", "", "", "", "GRU", list("abcd"), [TracedLayer("", recording.layers[0])],
                ["one"], [Dependence("x", "y", values)], {"suggestions": [], "chances": []}, start=0)  # fmt: skip
    with pytest.raises(TraceError, match="gradients of this network are not finite"):
        render(page)


@needs_browser
@pytest.mark.parametrize("values", [[3.0, 5.0], [4.0] * 30, [None, 1.0, None, -2.0, None, 0.5]])
def test_short_flat_and_gappy_series_are_drawn(
    chromium: Browser, forecaster: Forecaster, tmp_path: Path, values: list[float | None]
) -> None:
    ds = np.datetime64("2024-01-01", "D") + np.arange(len(values))
    table = forecaster.read(polars.DataFrame({"unique_id": "s", "ds": ds, "y": values}))
    write_page(forecast_page(forecaster, table), tmp_path / "s.html")
    del chromium.complaints[:]
    chromium.open(tmp_path / "s.html")
    assert "NaN" not in chromium.run("document.body.innerHTML")
    assert chromium.complaints == []
