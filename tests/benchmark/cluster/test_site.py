"""The settings of a cluster: every one is checked, and what is left out is what the example says."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ddbench.benchmark.cluster.script import script
from ddbench.benchmark.cluster.site import EXAMPLE, Site, find_site, read_site, seconds_of
from ddbench.benchmark.core.errors import UsageError


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DDBENCH_SITE", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def test_the_example_says_the_defaults() -> None:
    assert read_site(EXAMPLE) == Site()


def test_the_examples_lines_are_settings_once_they_are_no_comments(tmp_path: Path) -> None:
    lines = EXAMPLE.read_text().splitlines()
    named = ("# - --", "# - module", "# command:", "# DDBENCH", "# warning", "# idle")
    live = [line[2:] if line.startswith(named) else line for line in lines]
    path = tmp_path / "site.yaml"
    path.write_text("\n".join(f"  {line}" if line.startswith("DDBENCH") else line for line in live))
    site = read_site(path)
    assert site.options[0] == "--partition=gpu"
    assert site.setup == ["module load cuda"]
    assert site.command == "apptainer exec --nv /shared/images/ddbench.sif bench"
    assert site.environment == {"DDBENCH_CACHE": "/scratch/me/ddbench"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stages: {distil: {gpus: 1}}", "stages.distil: unknown"),
        ("options: [--array=0-3]", "bench submit sets --array itself"),
        ("options: [-J x]", "bench submit sets --job-name itself"),
        ("options: [--gres=gpu:2]", "say it under stages, as gpus"),
        ("options: [-t 5]", "say it under stages, as time"),
        ('options: ["--qos=a\\n#SBATCH --array=9"]', "expected options of sbatch"),
        ("options: [partition=gpu]", "expected options of sbatch"),
        ("stages: {distill: {time: 8:00:00}}", "in quotes"),
        ('stages: {distill: {time: "soon"}}', "expected a time as sbatch takes it"),
        ('stages: {evaluate: {time: "5"}}', "stages.evaluate.time is 300 s"),
        ("stages: {evaluate: {memory: much}}", "stages.evaluate.memory"),
        ("environment: {'A B': 1}", "expected names of variables"),
        ("environment: {A: true}", "environment.A"),
        ("idle_minutes: 0", "idle_minutes"),
        ("[]", "expected a mapping of settings"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_site(path)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("time", "seconds"),
    [("90", 5400), ("2:30", 150), ("8:00:00", 28800), ("1-12", 129600), ("1-12:30", 131400), ("1-0:00:10", 86410)],
)
def test_times_are_sbatchs(time: str, seconds: int) -> None:
    assert seconds_of(time) == seconds


def test_where_settings_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "runs"
    with pytest.raises(UsageError, match="bench submit --init"):
        find_site(None, out)
    config = tmp_path / "config" / "ddbench" / "site.yaml"
    for path in (config, out / "site.yaml"):  # each wins over the one before
        path.parent.mkdir(parents=True)
        path.touch()
        assert find_site(None, out) == path
    monkeypatch.setenv("DDBENCH_SITE", "/shared/site.yaml")
    assert find_site(None, out) == Path("/shared/site.yaml")
    assert find_site(Path("mine.yaml"), out) == Path("mine.yaml")


@pytest.mark.parametrize(("status", "calls", "ends"), [
    (0, [], "0"), (1, [], "1"), (85, ["requeue 7_2"], None), (86, ["requeuehold 7_2", "release 7_2"], None),
    (85, ["fails"], "85"), (86, ["fails"], "86"),
])  # fmt: skip
def test_what_the_shell_does_about_a_pilots_exit_status(
    tmp_path: Path, status: int, calls: list[str], ends: str | None
) -> None:
    """With a stand-in for `scontrol`; of a task that is held, whose note somebody has claimed meanwhile."""
    job, programs = tmp_path / "job", tmp_path / "bin"
    for path in (job / "held", job / "ended", job / "orders", programs):
        path.mkdir(parents=True)
    fails = calls == ["fails"]
    stand_ins = {"scontrol": f'echo "$*" >>{tmp_path}/calls; exit {int(fails)}', "sleep": "exec /bin/sleep 0.01"}
    for name, body in stand_ins.items():
        (programs / name).write_text(f"#!/bin/sh\n{body}\n")
        (programs / name).chmod(0o755)
    (tmp_path / "pilot.sbatch").write_text(script(Site(command=f"sh -c 'exit {status}'"), "evaluate", job, job, 3, "t"))
    environment = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2", "PATH": f"{programs}:/usr/bin:/bin"}
    done = subprocess.run(["bash", tmp_path / "pilot.sbatch"], env=environment, capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    called = (tmp_path / "calls").read_text().splitlines() if (tmp_path / "calls").exists() else []
    assert called == (calls if not fails else [f"requeue{'hold' if status == 86 else ''} 7_2"] * 6)
    marker = job / "ended" / "7_2"
    assert (marker.read_text().strip() if marker.exists() else None) == ends


def test_a_script_holds_whatever_its_folders_are_called(tmp_path: Path) -> None:
    """Run with stand-ins for the pilot: what it finds is what was given."""
    job, folder = tmp_path / 'it\'s $HOME "x"', tmp_path / "a b"
    for path in (job / "held", job / "ended", folder):
        path.mkdir(parents=True)
    seen = tmp_path / "seen"
    site = Site(
        command=f'sh -c \'printf "%s\\n" "$PWD" "$VALUE" "$FROM_SETUP" "$@" >{seen}\' sh',
        environment={"VALUE": "it's $HOME"},
        setup=["export FROM_SETUP=2$NEVER_SET"],
        options=["--partition=gpu"],
    )
    text = script(site, "evaluate", job, folder, 3, "a title")
    assert "#SBATCH --partition=gpu" in text.splitlines()
    (tmp_path / "pilot.sbatch").write_text(text)
    environment = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2", "PATH": "/usr/bin:/bin"}
    subprocess.run(["bash", tmp_path / "pilot.sbatch"], env=environment, check=True, capture_output=True)
    assert (job / "ended" / "7_2").read_text() == "0\n"
    assert seen.read_text().splitlines() == [str(folder), "it's $HOME", "2", "pilot", str(job), "evaluate"]
