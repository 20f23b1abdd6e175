import pytest

from servescope.engine.catalog import find_gpu, find_model, gpus, models
from servescope.engine.step_time import Load, StepTime
from servescope.traces.errors import InputError


def test_names_are_found_whatever_their_case() -> None:
    assert find_model("llama-3.1-8b") is models()["Llama-3.1-8B"]
    assert find_gpu("h200") is gpus()["H200"]


def test_an_unknown_name_lists_the_near_ones() -> None:
    with pytest.raises(InputError, match=r"'Llama-3-8B' is not a model\. Near it: .*Llama-3.1-8B"):
        find_model("Llama-3-8B")
    with pytest.raises(InputError, match=r"Near it: .*H100"):
        find_gpu("H1000")


@pytest.mark.parametrize(
    ("name", "billions"), [("Llama-3.1-8B", 8.03), ("Mistral-7B", 7.24), ("Yi-34B", 34.4)]
)
def test_the_shapes_add_up_to_the_published_parameter_counts(name: str, billions: float) -> None:
    assert find_model(name).weight_bytes / 2e9 == pytest.approx(billions, rel=0.005)


def test_eight_gpus_copy_the_heads_of_a_model_that_has_four() -> None:
    model = find_model("Qwen2.5-7B")
    assert model.kv_bytes_per_token(8) == model.kv_bytes_per_token(4)


@pytest.mark.parametrize("gpu", gpus())
def test_every_gpu_can_time_a_step(gpu: str) -> None:
    load = Load(tokens=1, sequences=1, kv_tokens=100, pairs=0)
    assert 1e-3 < StepTime(find_model("Llama-3.1-8B"), find_gpu(gpu))(load) < 0.1
