"""Makes a tiny random Llama in an environment with transformers: `python tiny_model.py FOLDER EOS`.

Ids from EOS on end an answer, unless a request says to ignore that; the tokenizer is copied there.
"""

import sys

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

VOCABULARY = 2048


def main(folder: str, eos: int) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,  # two heads of 64: vLLM on a CPU knows no heads of 16
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        initializer_range=0.05,
        bos_token_id=0,
        eos_token_id=2,
        dtype="float32",
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    ends = GenerationConfig(eos_token_id=[2, *range(eos, VOCABULARY)], do_sample=False)
    ends.save_pretrained(folder)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
