"""What transformers renders of conversations with chat templates."""

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast


def rendered(templates, conversations):
    """One case for each template, conversation and choice of a generation prompt: its text, or the error."""
    cases = []
    for name, template in templates.items():
        words = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1}, unk_token="<s>"))
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>", chat_template=template)
        for messages in conversations:
            for generation_prompt in (False, True):
                case = {"template": name, "messages": messages, "generation_prompt": generation_prompt}
                try:
                    case["text"] = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation_prompt)
                except Exception as error:  # noqa: BLE001
                    case["error"] = str(error)
                cases.append(case)
    return cases
