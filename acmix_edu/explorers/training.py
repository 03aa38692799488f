"""The training explorer: scrub through the recorded runs by task, arm, seed and layer."""

import traitlets

from acmix_edu.explorers.explorer import Explorer, one_of
from acmix_edu.explorers.loader import bundle, source
from acmix_edu.training.network import ARMS
from acmix_edu.training.runs import TASKS, records

PER_RUN = ("test_accuracy", "loss")
PER_LAYER = ("share", "alpha", "beta", "drift", "entropy")


class TrainingExplorer(Explorer):
    """Show what was recorded while small networks were trained, epoch by epoch.

    The charts show the test accuracy of two arms side by side, and of every arm that all tasks
    have. With ``inside`` they also show the loss and, for the first arm, layer by layer,
    attention's share of the norm, α, β, the drift of the shift kernels and the entropy of the
    attention weights. A thin line is a seed, a thick one the mean of the seeds.

    Args:
        runs: records by task, as ``acmix_edu.training.runs.records`` returns them; all those that
            come with the package when left out.
        task, arm, beside: where to start; ``beside`` is the arm to compare with. When left out,
            they are "match", "acmix" and "attention", or the first that ``runs`` holds.
        epoch: where to start, from 0.
        inside: show all charts from the start.

    Traits:
        task, arm, beside, inside, and epoch, from 0 (before training) to the longest task's last.

    Raises:
        TypeError, ValueError: ``runs`` does not hold such records, or a trait's new value is not in
            them; the message says what is.

    Example:
        >>> explorer = TrainingExplorer(task="match", arm="acmix", beside="attention")
        >>> explorer.observe(lambda change: print("epoch", change.new), "epoch")
        >>> explorer.epoch = 3
        epoch 3
    """

    _esm = bundle("kit.js", "training.js")
    _css = source("explorer.css") + source("training.css")

    task = traitlets.Unicode().tag(sync=True, state=True)
    arm = traitlets.Unicode().tag(sync=True, state=True)
    beside = traitlets.Unicode().tag(sync=True, state=True)
    epoch = traitlets.Int(0).tag(sync=True, state=True)
    inside = traitlets.Bool(False).tag(sync=True, state=True)

    # task: { chance, arms: { arm: [a run for each seed] } }; see _curves
    runs = traitlets.Dict(read_only=True).tag(sync=True)
    names = traitlets.Dict(read_only=True).tag(sync=True)  # of tasks and arms, in their order

    def __init__(
        self,
        runs: dict[str, dict] | None = None,
        *,
        task: str | None = None,
        arm: str | None = None,
        beside: str | None = None,
        epoch: int = 0,
        inside: bool = False,
    ):
        if runs is None:
            runs = {task: records(task) for task in sorted(TASKS)}
        self._curves = _all_curves(runs)
        self._bounds = {"epoch": max(len(run["loss"]) for task in self._curves.values()
                                     for arm in task["arms"].values() for run in arm)}  # fmt: skip
        arms = list(next(iter(self._curves.values()))["arms"])
        names = {"tasks": list(self._curves), "arms": arms}
        state = {
            "task": _first(task, "match", names["tasks"]), "arm": _first(arm, "acmix", arms),
            "beside": _first(beside, "attention", arms), "epoch": epoch, "inside": inside,
        }  # fmt: skip
        super().__init__("training", {"runs": self._curves, "names": names}, **state)

    def run(self, arm: str | None = None) -> list[dict]:
        """Return the curves of an arm on the shown task, by seed; of the shown arm when left out.

        Example:
            >>> len(TrainingExplorer().run("attention"))
            10
        """
        arms = self._curves[self.task]["arms"]
        return arms[self.arm if arm is None else one_of("arm", arm, list(arms))]

    @traitlets.validate("task", "arm", "beside")
    def _known(self, proposal):
        name = proposal.trait.name
        known = list(self._curves if name == "task" else next(iter(self._curves.values()))["arms"])
        return one_of(name, proposal.value, known)


def _first(passed: str | None, usual: str, held: list[str]) -> str:
    """Return where to start: what was passed, or the usual, or the first that there is."""
    if passed is not None:
        return passed
    return usual if usual in held else held[0]


def _all_curves(runs) -> dict:
    """Return the curves of every task, of the arms that all of them have."""
    try:
        curves = {task: _curves(record) for task, record in runs.items()}
        if not curves:
            raise TypeError("it is empty")
        arms = set.intersection(*(set(task["arms"]) for task in curves.values()))
    except (AttributeError, KeyError, TypeError, IndexError) as error:
        raise TypeError(
            "runs must be records by task, as {'match': records('match')}, but something else "
            f"came ({type(error).__name__}: {error})."
        ) from None
    if not arms:
        raise ValueError("the tasks of runs must have an arm in common, but they have none.")
    for task in curves.values():
        task["arms"] = {arm: made for arm, made in task["arms"].items() if arm in arms}
    return curves


def _curves(record: dict) -> dict:
    """Return, by arm and seed of one task, each quantity over the epochs, [epochs] or by layer."""
    arms: dict[str, list] = {}
    for run in record["runs"]:
        log = run["records"]
        curves = {name: [entry[name] for entry in log] for name in PER_RUN}
        layers = range(len(log[0]["layers"]))
        for name in PER_LAYER:
            curves[name] = [[entry["layers"][n][name] for entry in log] for n in layers]
        arms.setdefault(run["arm"], []).append(curves)
    order = [*(arm for arm in ARMS if arm in arms), *(arm for arm in arms if arm not in ARMS)]
    return {"chance": 1 / len(record["classes"]), "arms": {arm: arms[arm] for arm in order}}
