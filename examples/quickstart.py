"""Train a classifier on handwritten digits with several settings, each as a run of its own; then ask again.

    python examples/quickstart.py

The runs share the machine's CPUs through localrun's queue. Asked a second time, the results come from the cache:
start this file again, and nothing is trained at all. `localrun get runs` lists what was made.
"""

import time

import localrun


@localrun.function(cpus=1)
def train(hidden: int, learning_rate: float) -> float:
    """Train a small neural network on scikit-learn's digits; returns its accuracy on digits it has not seen."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from sklearn.neural_network import MLPClassifier

    images, labels = load_digits(return_X_y=True)
    seen, unseen, seen_labels, unseen_labels = train_test_split(images / 16, labels, test_size=0.3, random_state=0)
    model = MLPClassifier((hidden,), learning_rate_init=learning_rate, early_stopping=True, random_state=0)
    model.fit(seen, seen_labels)
    print(f"{hidden} hidden units, learning rate {learning_rate}: {model.n_iter_} epochs")
    return float(model.score(unseen, unseen_labels))


def ask() -> dict[tuple[int, float], float]:
    """The accuracy for every setting: trained where it has to be, in parallel, and remembered where it was."""
    settings = [(hidden, rate) for hidden in (16, 64) for rate in (0.03, 0.003)]
    runs = {setting: train.get_or_run(*setting) for setting in settings}
    return {setting: run.result() for setting, run in runs.items()}


def main() -> None:
    """Ask twice, with a clock."""
    start = time.perf_counter()
    accuracies = ask()
    first = time.perf_counter() - start

    print(f"{'hidden':>8} {'learning rate':>14} {'accuracy':>9}")
    for (hidden, rate), accuracy in sorted(accuracies.items(), key=lambda item: -item[1]):
        print(f"{hidden:>8} {rate:>14} {accuracy:>9.3f}")

    start = time.perf_counter()
    again = ask()
    second = time.perf_counter() - start
    assert again == accuracies
    print(f"asked the first time: {first:.2f} s; asked again, from the cache: {second:.2f} s")


if __name__ == "__main__":
    main()
