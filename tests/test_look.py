"""Drawing helpers: what they draw, and what they refuse."""
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import confusion_matrix

from fashion_proto.data import LABELS
from fashion_proto.look import confusion_counts, plot_confusion_matrix, show_data, show_images


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def test_show_data_writes_each_value():
    ax = show_data([[0.5, 1], [2, 3]], formatter="{:.1f}", vmin=0, vmax=4)
    assert [t.get_text() for t in ax.texts] == ["0.5", "1.0", "2.0", "3.0"] and ax.images[0].get_clim() == (0, 4)
    assert show_data([[1]], ax=ax, formatter=lambda v: f"<{v}>") is ax and ax.texts[-1].get_text() == "<1>"
    for bad in np.zeros(3), np.zeros((2, 2, 2)):
        with pytest.raises(ValueError, match="2 dimensions"): show_data(bad)


def test_show_images_grid(fashion):
    images = fashion[1].images[:100]
    fig, axes = show_images(images, fashion[1].labels[:100], nrows=2, ncols=3, indices=[7, 3])
    assert axes.shape == (2, 3) and [ax.get_title() for ax in axes.flat[:2]] == [fashion[1].labels[7], fashion[1].labels[3]]
    assert (axes.flat[0].images[0].get_array() == images[7]).all() and axes.flat[0].images[0].get_clim() == (0, 255)
    assert not axes.flat[2].images and not any(ax.axison for ax in axes.flat)
    assert show_images(images / 255, indices=[0])[1].flat[0].images[0].get_clim() == (0, 1)


def test_show_images_draw_is_seeded_and_without_replacement(fashion):
    images = np.arange(12)[:, None, None] * np.ones((1, 4, 4), np.uint8)
    drawn = lambda seed: [ax.images[0].get_array()[0, 0] for ax in show_images(images, nrows=3, ncols=4, random_state=seed)[1].flat]
    assert drawn(1) == drawn(1) != drawn(2) and sorted(drawn(1)) == list(range(12))
    assert len(show_images(images[:3])[0].axes) == 10, "fewer images than places"
    show_images(np.zeros((2, 5, 6, 3)))
    assert [len(show_images(images, list("abcdefghijkl"), indices=i)[0].axes[0].images) for i in [(), (1,), [2, 3]]] == [0, 1, 1]


@pytest.mark.parametrize("args, message", [
    (dict(data=np.zeros((4, 784))), r"data must be images.*\(4, 784\)"), (dict(data=np.zeros((4, 5, 5, 2))), "data must be images"),
    (dict(data=np.zeros((4, 5, 5)), labels=[1]), "labels must be as many as the images, 4, got 1"),
    (dict(data=np.zeros((4, 5, 5)), indices=[True, False]), "indices must be whole numbers"),
    (dict(data=np.zeros((4, 5, 5)), indices=[0.5]), "indices must be whole numbers"),
    (dict(data=np.zeros((4, 5, 5)), nrows=1, ncols=1, indices=[0, 1]), "at most")])
def test_show_images_refuses(args, message):
    with pytest.raises(ValueError, match=message): show_images(**args)


@pytest.mark.parametrize("kind", [list, np.array, pd.Categorical, pd.Series])
def test_confusion_counts_as_scikit_learn(kind):
    rng = np.random.default_rng(0)
    true, pred = rng.choice(list("abc"), (2, 500))
    got = confusion_counts(kind(true), kind(pred))
    assert (got.to_numpy() == confusion_matrix(true, pred)).all() and list(got.index) == list("abc") == list(got.columns)
    if kind is pd.Categorical:
        given = pd.Series(pd.Categorical(true, categories=list("dcba")))
        assert list(confusion_counts(given, pred).index) == list("dcba") == list(confusion_counts(given.array, pred).index)
    turned = confusion_counts(kind(true), kind(pred), labels=list("dcba"))
    assert (turned.to_numpy() == confusion_matrix(true, pred, labels=list("dcba"))).all()


def test_confusion_counts_numbers_and_refusals():
    assert confusion_counts([1, 2, 2], [2, 2, 1]).to_numpy().tolist() == [[0, 1], [1, 1]]
    with pytest.raises(ValueError, match="y_pred must be as many as y_true, 2, got 1"): confusion_counts([1, 2], [1])
    with pytest.raises(ValueError, match="labels must be one or more, each once"): confusion_counts([], [])
    with pytest.raises(ValueError, match="labels must be one or more, each once"): confusion_counts([1], [1], labels=[1, 1])
    with pytest.raises(ValueError, match=r"y_true must be among labels \[1\], got 2"): confusion_counts([1, 2], [1, 1], labels=[1])


def test_plot_confusion_matrix_shows_counts_and_totals(fashion):
    labels = fashion[1].labels
    ax = plot_confusion_matrix(labels, np.roll(labels, 1))
    texts = [t.get_text() for t in ax.texts]
    assert len(texts) == 100 and sum(int(t or 0) for t in texts) == 10000
    assert [t.get_text() for t in ax.get_yticklabels()] == [f"{name} (1000)" for name in LABELS]
    assert plot_confusion_matrix(["a"], ["b"], labels=["b", "a"], ax=ax) is ax
