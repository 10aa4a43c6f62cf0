"""What the cases of language models share: lively random weights, greedy tokens, and the values that every decoder is held to.

`expect` names its tensors alike in every case, so that one set of Rust tests reads them all.
"""

import torch
from transformers.pytorch_utils import Conv1D

# The smallest lead of a greedy token over the second best that a test may rely on.
MARGIN = 2e-2


@torch.no_grad()
def fill(model, generator):
    """Random weights under which the logits are spread, and biases and norms all matter."""
    modules = list(model.modules())
    tables = {id(m.weight) for m in modules if isinstance(m, torch.nn.Embedding)}
    # A Conv1D keeps its matrix as [n_in, n_out].
    transposed = {id(m.weight) for m in modules if isinstance(m, Conv1D)}
    head = model.get_output_embeddings()
    tied = head is not None and head.weight is model.get_input_embeddings().weight
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        n_in = weight.shape[0] if id(weight) in transposed else weight.shape[-1]
        if weight.dim() == 1:
            # Biases, and the gains of norms.
            weight.copy_(0.3 * noise if name.endswith("bias") else 1.0 + 0.3 * noise)
        elif id(weight) in tables:
            # A table that is the head as well gives logits of a few units.
            weight.copy_(2.5 * noise / n_in**0.5 if tied else noise)
        elif "q_proj" in name or "k_proj" in name:
            weight.copy_(2.0 * noise / n_in**0.5)
        else:
            # Where words meet the head again, blocks must outweigh them, or every word predicts itself.
            weight.copy_((3.0 if tied else 1.5) * noise / n_in**0.5)
    return model.eval()


def embed(model, ids):
    return model.get_input_embeddings()(ids)


def models(folder, settings, seeds, positions, write, load, tensors, lists):
    """Writes each model and what is expected of it into `tensors` and `lists`; yields its name, the model and its own tensors."""
    for seed, (name, sizes) in enumerate(settings.items(), 1):
        model = write(folder / name, sizes, seed)
        found, lists[name] = expect(model, torch.Generator().manual_seed(seeds[name]), positions)
        assert torch.equal(load(folder / name)(input_ids=found["ids"]).logits, found["logits"]), name
        tensors.update({f"{name}.{key}": value for key, value in found.items()})
        yield name, model, found


def finish(writer):
    """Writes the parts of a GGUF file in their order."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@torch.no_grad()
def greedy(model, embeds, count):
    """Greedy tokens by cached steps, with the logits each was picked from: [count], [count, V]."""
    tokens, rows, past, step = [], [], None, embeds
    for _ in range(count):
        out = model(inputs_embeds=step, past_key_values=past, use_cache=True)
        past, logits = out.past_key_values, out.logits[0, -1]
        best = logits.topk(2).values
        assert best[0] - best[1] > MARGIN, f"greedy token leads by {best[0] - best[1]:.4f} only; choose another seed"
        tokens.append(int(logits.argmax()))
        rows.append(logits)
        step = embed(model, torch.tensor([[tokens[-1]]]))
    return tokens, torch.stack(rows)


def expect(model, generator, positions, lengths=(5, 9, 14), new=8, full=True, masked=True, position_ids=True):
    """Tensors and lists of one model: logits, taps, prefix, cached steps, rows of different lengths, a gradient.

    Not `masked` where a mask moves positions, without `position_ids` where a model takes no position ids.
    """
    tensors, lists = {}, {"greedy_margin": MARGIN}
    width, vocab = model.get_input_embeddings().weight.shape[1], model.config.vocab_size

    def ids_of(*shape):
        return torch.randint(0, vocab, shape, generator=generator)

    with torch.no_grad():
        ids = ids_of(2, 20)
        out = model(input_ids=ids)
        assert out.logits.std() >= 1.0
        print(f"logits have standard deviation {out.logits.std():.2f}")
        tensors |= {"ids": ids, "logits": out.logits, "embeds": embed(model, ids)}

        # Before the first block, then after each, the last after the final norm.
        out = model(input_ids=ids[:1], output_hidden_states=True, output_attentions=True)
        tensors |= {f"hidden.{i}": state for i, state in enumerate(out.hidden_states)}
        tensors |= {f"attention.{i}": state for i, state in enumerate(out.attentions)}

        # A prefix of another scale than the word embeddings, as a projected image has.
        prefix = 5.0 * torch.randn(2, 6, width, generator=generator)
        text = ids_of(2, 7)
        both = torch.cat([prefix, embed(model, text)], 1)
        tensors |= {"prefix.embeds": prefix, "prefix.ids": text, "prefix.logits": model(inputs_embeds=both).logits}

        # Row 0 step by step: logits of each cached step, beside the uncached ones.
        steps, past = [], None
        for position in range(ids.shape[1]):
            out = model(input_ids=ids[:1, position:position + 1], past_key_values=past, use_cache=True)
            past = out.past_key_values
            steps.append(out.logits[:, 0])
        tensors["cached.logits"] = torch.stack(steps, 1)
        print(f"cached and uncached differ by {(tensors['cached.logits'] - tensors['logits'][:1]).abs().max():.1e}")

        # Rows of different lengths, each computed alone.
        rows = ids_of(len(lengths), max(lengths))
        lists["batch"] = {"greedy": [], "ids": []}
        picked = []
        for row, length in enumerate(lengths):
            tokens, logits = greedy(model, embed(model, rows[row:row + 1, :length]), new)
            lists["batch"]["greedy"].append(tokens)
            lists["batch"]["ids"].append(rows[row, :length].tolist())
            picked.append(logits)
        tensors["batch.greedy_logits"] = torch.stack(picked)

        # The whole context, all its positions.
        if full:
            whole = ids_of(1, positions)
            tensors |= {"full.ids": whole, "full.logits": model(input_ids=whole).logits}

        # Keys 2 and 5 hidden: positions stay where they are.
        if masked:
            mask = torch.ones(1, 20, dtype=torch.long)
            mask[0, 2] = mask[0, 5] = 0
            ids_of_positions = {"position_ids": torch.arange(20)[None]} if position_ids else {}
            out = model(input_ids=ids[:1], attention_mask=mask, **ids_of_positions)
            tensors |= {"masked.mask": mask, "masked.logits": out.logits}

    # A training step's gradient: prefix positions but the last are no targets.
    targets = torch.full((2, 13), -100)
    targets[:, 5:12] = text
    # The shorter second row ends earlier, so that the mean is over unequal counts.
    targets[1, 9:] = -100
    leaf = both.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(model(inputs_embeds=leaf).logits.reshape(-1, vocab), targets.reshape(-1))
    loss.backward()
    tensors |= {"grad.embeds": both, "grad.targets": targets, "grad.loss": loss.reshape(1), "grad.input": leaf.grad}
    return tensors, lists


def variants(cls, folder, changes, ids):
    """Logits of the weights in `folder` under a config.json in which each of `changes` is set."""
    tensors = {}
    for name, change in changes.items():
        model = cls.from_pretrained(folder, attn_implementation="eager", **change).eval()
        with torch.no_grad():
            tensors |= {f"{name}.ids": ids, f"{name}.logits": model(input_ids=ids).logits}
    return tensors


@torch.no_grad()
def initial(model):
    """How a new model's weights lie: shape, mean and deviation of each, and its rows of zeros where others have none."""
    found = {}
    for name, weight in model.named_parameters():
        rows = (weight == 0).all(-1).nonzero()[:, 0].tolist() if weight.dim() == 2 and weight.abs().max() > 0 else []
        kept = weight[[i for i in range(weight.shape[0]) if i not in rows]]
        found[name] = {"shape": list(weight.shape), "mean": kept.double().mean().item(), "std": kept.double().std().item(), "zero_rows": rows}
    return found
