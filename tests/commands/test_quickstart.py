"""`axe-hf quickstart`: its options."""

from axe_hf.commands.quickstart import parse
from axe_hf.quickstart import QuickstartArguments


def test_its_options_are_the_fields_of_its_arguments():
    assert parse([]) == QuickstartArguments()
    given = parse(
        ["--output_dir", "x", "--minutes", "0.5", "--seed", "2", "--overwrite", "--paper"]
    )
    assert given == QuickstartArguments("x", minutes=0.5, seed=2, overwrite=True, paper=True)


def test_wrong_usage_and_a_folder_in_use(fails, tmp_path):
    assert "`minutes` must be a positive" in fails(2, "quickstart", "--minutes", "0")
    assert "--minutes: invalid float" in fails(2, "quickstart", "--minutes", "x")
    (tmp_path / "mine").write_text("")
    line = fails(1, "quickstart", "--output-dir", tmp_path)
    assert "`output_dir` must be a new or an empty folder" in line and "--overwrite" in line
