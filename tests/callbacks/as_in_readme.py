"""What stands before and after the lines of the README that record a framework's training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.callbacks.nets import images_and_labels, small_net


def before(framework: str, folder: Path) -> dict[str, Any]:
    """The names that the line of one framework uses."""
    if framework == "lightning":
        import lightning

        return {"L": _Quiet(lightning, folder)}
    if framework == "transformers":
        from transformers import Trainer, TrainingArguments

        from tests.callbacks.transformers_kit import Classifier, examples

        arguments = TrainingArguments(str(folder), report_to=[], use_cpu=True, disable_tqdm=True, save_strategy="no")
        return {"Trainer": Trainer, "model": Classifier(), "args": arguments, "data": examples()}
    if framework == "skorch":
        from skorch import NeuralNetClassifier

        return {"NeuralNetClassifier": NeuralNetClassifier, "Net": small_net}
    return {}


def after(framework: str, names: dict[str, Any]) -> None:
    """Train with what the line made."""
    import torch

    images, labels = images_and_labels(30)
    if framework == "lightning":
        from tests.callbacks.lightning_kit import Classifier, loader

        names["trainer"].fit(Classifier(), loader())
    elif framework == "transformers":
        names["trainer"].train()
    elif framework == "skorch":
        names["net"].set_params(criterion=torch.nn.CrossEntropyLoss, verbose=0).fit(images.numpy(), labels.numpy())
    else:
        from accelerate import Accelerator

        accelerator = Accelerator(cpu=True, log_with=names["tracker"])
        net = small_net()
        model, optimizer = accelerator.prepare(net, torch.optim.SGD(net.parameters(), lr=0.1))
        accelerator.init_trackers("digits")
        names["tracker"].watch(model, optimizer)
        for _ in range(3):
            accelerator.backward(torch.nn.functional.cross_entropy(model(images), labels))
            optimizer.step()
        accelerator.end_training()


class _Quiet:
    """Lightning, with a Trainer that is short, silent and writes no checkpoints."""

    def __init__(self, lightning: Any, folder: Path) -> None:
        self._lightning, self._folder = lightning, folder

    def Trainer(self, **settings: Any) -> Any:  # noqa: N802
        return self._lightning.Trainer(
            **settings,
            max_epochs=1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=self._folder,
        )
