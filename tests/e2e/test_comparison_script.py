"""Comparisons in a terminal, one by its script: what is compared, and where the report goes."""

from __future__ import annotations

import json
import shutil

import pytest

SCRIPT = "scheduler_comparison.sh"


@pytest.fixture
def project(trained):
    """A project with one finished training, in a folder with a space and umlauts."""
    return trained.with_scripts()


@pytest.fixture
def refused(read):
    """Return the one message of a comparison that is refused; nothing is written."""

    def refuse(place, *arguments: str) -> str:
        before = place.files()
        status, text = read(place.command("compare", *arguments))
        assert status == 2, text
        assert text.startswith("error: ")
        assert "Traceback" not in text
        assert place.files() == before
        return text

    return refuse


def report(folder) -> dict[str, object]:
    document = json.loads((folder / "comparison" / "comparison.json").read_text(encoding="utf-8"))
    assert {path.suffix for path in (folder / "comparison").iterdir()} >= {".html", ".png"}
    return document


def names(document) -> set[str]:
    return {row["name"] for row in document["schedulers"]}


def reports(place) -> list[object]:
    return list((place.path / "outputs" / "scheduler_comparison").glob("run_*"))


def test_the_newest_run_is_compared_under_its_own_config(project, read):
    status, text = read(project.script(SCRIPT))
    assert status == 0, text
    [folder] = reports(project)
    learned = {"ppo", "warm_start"}
    assert names(report(folder)) == {*learned, "least_outstanding", "round_robin"}
    assert all(name in text for name in learned)
    assert f"comparison in {folder.relative_to(project.path)}" in " ".join(text.split())


def test_a_policy_file_is_compared_quietly_and_the_folder_is_not_used_twice(project, read, refused):
    shutil.copy(project.runs[0] / "policy.pt", project.path / "päpier.pt")
    shutil.rmtree(project.path / "outputs")
    chosen = ["--policy", "päpier.pt", "--config", "small.json", "--output-dir", "ein Bericht ü"]
    assert read(project.command("compare", *chosen, "--quiet")) == (0, "")
    folder = project.path / "ein Bericht ü"
    assert names(report(folder)) == {"ppo", "least_outstanding", "round_robin"}
    before = report(folder)
    text = refused(project, *chosen, "--quiet")
    assert "--output-dir ein Bericht ü: holds a comparison already" in text
    assert report(folder) == before


def test_a_file_that_is_no_policy_is_named_before_anything_runs(project, refused):
    (project.path / "bad.pt").write_bytes(b"no policy")
    assert refused(project, "--policy", "bad.pt").startswith("error: bad.pt: ")


def test_without_a_run_it_says_what_to_name(place, refused):
    text = refused(place.with_scripts())
    assert "outputs: there is no training to look at; name a run folder" in text


def test_a_run_that_is_not_there_is_named_whatever_the_default_config_is(project, refused):
    (project.path / "configs" / "ppo_warmstart.json").unlink()
    assert "nowhere: there is no training to look at" in refused(project, "--run", "nowhere")


def test_ctrl_c_ends_the_comparison_of_a_run_without_a_report(project, read):
    run = str(project.runs[0])
    many = [f"--set=evaluation.{key}=100" for key in ("num_seeds", "vidur_workloads")]
    child = project.command("compare", "--run", run, *many)
    child.expect(r"Vidur repeats 100 of 100 workloads")
    child.sendintr()
    status, text = read(child)
    [folder] = reports(project)
    assert status == 130
    said = " ".join(text.split())  # the terminal may have broken the line
    assert f"stopped by SIGINT; {folder.relative_to(project.path)} holds no report" in said
    assert "Traceback" not in text
    assert not (folder / "comparison").exists()
