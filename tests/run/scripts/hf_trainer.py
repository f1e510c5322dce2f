"""Teach a two-layer GPT-2 to count: every sequence goes up by a stride of its own, modulo the vocabulary."""
import os
import tempfile

import torch
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

VOCAB_SIZE = 17
SEQ_LEN = 12


class CountingDataset(Dataset):
    def __init__(self, size, seed):
        g = torch.Generator().manual_seed(seed)
        start = torch.randint(VOCAB_SIZE, (size, 1), generator=g)
        stride = torch.randint(1, 4, (size, 1), generator=g)
        self.input_ids = (start + stride * torch.arange(SEQ_LEN)) % VOCAB_SIZE

    def __len__(self):
        return len(self.input_ids)

    def __getitem__(self, i):
        return {"input_ids": self.input_ids[i], "labels": self.input_ids[i].clone()}


def main(output_dir):
    set_seed(0)

    config = GPT2Config(
        vocab_size=VOCAB_SIZE,
        n_positions=SEQ_LEN,
        n_embd=32,
        n_layer=2,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config)
    print(f"Training new model from scratch - Total size={model.num_parameters()} params")

    args = TrainingArguments(
        output_dir=output_dir,
        per_device_train_batch_size=32,
        per_device_eval_batch_size=64,
        learning_rate=1e-2,
        warmup_steps=6,
        lr_scheduler_type="cosine",
        weight_decay=0.01,
        max_steps=64,
        logging_steps=16,
        eval_strategy="no",
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        seed=0,
    )
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=CountingDataset(1024, seed=1),
        eval_dataset=CountingDataset(128, seed=2),
    )
    trainer.train()
    print("eval_loss = %.4f" % trainer.evaluate()["eval_loss"])

    if save_to := os.environ.get("SAVE_TO"):
        torch.save({name: p.detach() for name, p in model.named_parameters()}, save_to)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(scratch)
