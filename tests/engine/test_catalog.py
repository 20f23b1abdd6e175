import pytest

from servescope.engine.catalog import find_gpu, find_model, gpus, models
from servescope.engine.step_time import Load, StepTime
from servescope.traces.errors import InputError


def test_names_are_found_whatever_their_case() -> None:
    assert find_model("llama-3.1-8b") is models()["Llama-3.1-8B"]
    assert find_gpu("h200") is gpus()["H200"]


def test_an_unknown_name_lists_the_near_ones() -> None:
    with pytest.raises(InputError, match=r"'Llama-3-8' is not a model\. Near it: .*Llama-3.1-8B"):
        find_model("Llama-3-8")
    with pytest.raises(InputError, match=r"Near it: .*H100"):
        find_gpu("H1000")


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("LLaMA-7B", 6.74),
        ("LLaMA-30B", 32.5),
        ("Llama-2-7B", 6.74),
        ("Llama-2-13B", 13.02),
        ("Llama-2-70B", 68.98),
        ("Llama-3-8B", 8.03),
        ("Llama-3.1-8B", 8.03),
        ("Llama-3.1-70B", 70.55),
        ("Mistral-7B", 7.24),
        ("Yi-34B", 34.4),
        ("Qwen2.5-7B", 7.62),
        ("Mixtral-8x7B", 46.7),
        ("Qwen3-30B-A3B", 30.5),
    ],
)
def test_the_shapes_add_up_to_the_published_parameter_counts(name: str, billions: float) -> None:
    assert find_model(name).weight_bytes / 2e9 == pytest.approx(billions, rel=0.005)


@pytest.mark.parametrize(("name", "billions"), [("OPT-13B", 12.85), ("OPT-66B", 65.7)])
def test_opt_adds_up_once_its_tied_embedding_is_taken_off(name: str, billions: float) -> None:
    opt = find_model(name)
    tied = opt.weight_bytes / 2e9 - opt.vocabulary * opt.hidden / 1e9
    assert tied == pytest.approx(billions, rel=0.005)


@pytest.mark.parametrize(("name", "billions"), [("Mixtral-8x7B", 12.9), ("Qwen3-30B-A3B", 3.3)])
def test_a_token_goes_through_the_published_number_of_active_parameters(
    name: str, billions: float
) -> None:
    model = find_model(name)
    active = model.layers * model.active_weights + 2 * model.vocabulary * model.hidden
    assert active / 1e9 == pytest.approx(billions, rel=0.02)


def test_a_four_bit_70b_fits_one_a100() -> None:
    """AutoAWQ's checkpoint has 39.8 GB."""
    assert find_model("Llama-3.1-70B-4bit").weight_bytes == pytest.approx(39.8e9, rel=0.01)


def test_eight_gpus_copy_the_heads_of_a_model_that_has_four() -> None:
    model = find_model("Qwen2.5-7B")
    assert model.kv_bytes_per_token(8) == model.kv_bytes_per_token(4)


@pytest.mark.parametrize("gpu", gpus())
def test_every_gpu_can_time_a_step(gpu: str) -> None:
    load = Load(tokens=1, sequences=1, kv_tokens=100, pairs=0)
    assert 1e-3 < StepTime(find_model("Llama-3.1-8B"), find_gpu(gpu))(load) < 0.1


@pytest.mark.parametrize("model", models())
def test_every_model_can_be_timed_on_eight_gpus(model: str) -> None:
    load = Load(tokens=1, sequences=1, kv_tokens=100, pairs=0)
    assert 1e-3 < StepTime(find_model(model), find_gpu("H100"), tp=8)(load) < 0.1
