"""Trains the byte-level BPE tokenizer of both text models: train_tokenizer.py OUT DATA..."""
import pathlib
import random
import sys

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

import world

out, folders = pathlib.Path(sys.argv[1]), sys.argv[2:]
rng = random.Random(0)
texts = []
for folder in folders:
    for entry in world.load(folder, 8000):
        texts += ["".join(world.document(entry, rng)[:-1]), *entry["captions"]]
words = world.load(folders[0], 8000)
# Every cell word several times, so that each becomes one token.
texts += ["".join(" " + world.cell_word(o) for e in words for o in world.objects(e))]
tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
trainer = trainers.BpeTrainer(
    vocab_size=895, min_frequency=2, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
tokenizer.train_from_iterator(texts, trainer)
# The last id: open_clip pools its text tower where the id is largest.
tokenizer.add_special_tokens([world.EOS])
tokenizer.save(str(out / "tokenizer.json"))
fast = PreTrainedTokenizerFast(
    tokenizer_object=tokenizer, bos_token=world.EOS, eos_token=world.EOS, unk_token=world.EOS)
fast.save_pretrained(out)
print(len(fast), tokenizer.encode("A picture of a small red circle left of a large blue square").tokens)
print(tokenizer.encode(" nothing smallredcircle largepurpleheart nothing largeorangetriangle").tokens)
