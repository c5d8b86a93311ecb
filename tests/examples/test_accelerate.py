"""The configurations of accelerate are what `accelerate launch` makes of them, on any machine."""

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.launch import (
    prepare_deepspeed_cmd_env,
    prepare_multi_gpu_env,
    prepare_simple_launcher_cmd_env,
)

PROCESSES = {"one_gpu": 1, "multi_gpu": 8, "multi_node": 16, "fsdp2": 8, "zero2": 8, "zero3": 8}
PROCESSES |= {"cpu": 2}


@pytest.fixture
def folder(repository):
    return repository / "examples" / "recipes" / "accelerate"


@pytest.fixture
def launched(folder, monkeypatch):
    """What `accelerate launch` works with, by its own parser; it reads the environment."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def of(name, *options):
        argv = ["--config_file", str(folder / f"{name}.yaml"), *options, "-m", "axe_hf", "train"]
        given = launch_command_parser().parse_args(argv)
        args, defaults, _ = _validate_launch_command(given)
        args.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
        return args

    return of


def test_there_is_a_test_for_each(folder):
    assert {path.stem for path in folder.glob("*.yaml")} == set(PROCESSES)


@pytest.mark.parametrize("name", PROCESSES)
def test_each_loads_and_says_how_it_is_used_and_whether_it_ran(folder, name):
    path = folder / f"{name}.yaml"
    assert load_config_from_file(str(path)).num_processes == PROCESSES[name]
    text = path.read_text(encoding="utf-8")
    assert f"accelerate/{name}.yaml" in text
    assert "-m axe_hf train" in text
    assert "# Runs: " in text


def test_one_gpu_is_a_process_without_a_launcher(launched):
    command, _ = prepare_simple_launcher_cmd_env(args := launched("one_gpu"))
    assert command[1:] == ["-m", "axe_hf", "train"]
    assert not (args.multi_gpu or args.use_fsdp or args.use_deepspeed)


@pytest.mark.parametrize("name", ["multi_gpu", "cpu"])
def test_several_processes_on_a_machine_are_started_by_torch_distributed_run(launched, name):
    prepare_multi_gpu_env(args := launched(name))
    assert args.multi_gpu and not args.cpu  # else it would start one process
    assert (args.nproc_per_node, args.module) == (str(PROCESSES[name]), True)


def test_each_of_several_machines_starts_its_share(launched):
    prepare_multi_gpu_env(args := launched("multi_node", "--machine_rank", "1"))
    assert (args.nnodes, args.nproc_per_node, args.node_rank) == ("2", "8", 1)
    assert args.rdzv_endpoint == "127.0.0.1:29500"


def test_fsdp2_shards_layers_and_saves_models_whole(launched, monkeypatch):
    args = launched("fsdp2")
    assert args.use_fsdp
    for name, value in prepare_multi_gpu_env(args).items():
        monkeypatch.setenv(name, value)
    plugin = FullyShardedDataParallelPlugin()
    assert (plugin.fsdp_version, plugin.reshard_after_forward) == (2, True)
    assert plugin.auto_wrap_policy.__name__ == "transformer_auto_wrap_policy"
    assert plugin.state_dict_type.name == "FULL_STATE_DICT"


@pytest.mark.parametrize("stage", [2, 3])
def test_zero_is_of_its_stage_and_leaves_the_rest_to_the_command(launched, stage):
    args = launched(f"zero{stage}")
    assert args.use_deepspeed
    _, variables = prepare_deepspeed_cmd_env(args)
    assert variables["ACCELERATE_USE_DEEPSPEED"] == "true"
    assert variables["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == str(stage)
    assert variables["ACCELERATE_GRADIENT_ACCUMULATION_STEPS"] == "auto"
