"""The worker's command line: graphvine's own, and what users of TaskVine have in their scripts."""

from __future__ import annotations

import math

import pytest

from graphvine.worker.options import GRACE_S, NOTHING_TO_DO, TIMEOUT_S, ignored, parse


def error_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_a_line_from_a_taskvine_script() -> None:
    line = "-M demo --cores 4 --memory 4000 --disk 20000 --timeout 900 -P pw -d all -o w.log"
    options = parse(line.split())
    assert (options.manager, options.cores, options.memory, options.disk) == ("demo", 4.0, 4000.0, 20000.0)
    assert (options.timeout, options.debug, options.debug_file) == (900.0, ["all"], "w.log")
    (said,) = ignored(options)
    assert "the connection file has keys of its own" in said


def test_host_and_port_in_one_word_or_two() -> None:
    for words in (["there", "9123"], ["there:9123"]):
        options = parse(words)
        assert (options.host, options.port) == ("there", 9123)
    options = parse(["[::1]:9123"])
    assert (options.host, options.port) == ("::1", 9123)


def test_times_and_sizes_have_units() -> None:
    options = parse(
        ["h", "1", "--wall-time", "2h", "-t", "15m", "--grace", "570", "--memory", "4GB", "--disk", "1.5TB"]
    )
    assert (options.wall_time, options.timeout, options.grace) == (7200.0, 900.0, 570.0)
    assert (options.memory, options.disk) == (4096.0, 1.5 * 2**20)


def test_zero_cores_are_all_and_negative_gpus_are_found_out() -> None:
    options = parse(["h", "1", "--cores", "0", "--gpus", "-1"])
    assert options.cores is None
    assert options.gpus is None
    assert parse(["h", "1", "--gpus", "2"]).gpus == 2.0


def test_only_who_looks_for_a_name_has_a_timeout_unasked() -> None:
    assert parse(["-M", "demo"]).timeout == TIMEOUT_S
    assert parse(["h", "1"]).timeout == math.inf
    assert parse(["h", "1"]).grace == GRACE_S


@pytest.mark.parametrize("names", NOTHING_TO_DO, ids=" ".join)
def test_options_that_mean_nothing_here_are_accepted_with_a_word(names: tuple[str, ...]) -> None:
    takes_value, why = NOTHING_TO_DO[names]
    for name in names:
        options = parse(["h", "1", name, *(["1"] if takes_value else [])])
        (line,) = ignored(options)
        assert why in line


@pytest.mark.parametrize(
    ("wrong", "nearest"), [("--timout", "--timeout"), ("--walltime=3", "--wall-time"), ("--core", "")]
)
def test_an_unknown_option_names_the_nearest(
    wrong: str, nearest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if not nearest:
        assert parse(["h", "1", wrong, "3"]).cores == 3.0, "a beginning that is no other's will do"
        return
    assert f"did you mean {nearest}?" in error_of(["h", "1", wrong], capsys)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name the manager"),
        (["--cores", "4"], "name the manager"),
        (["somewhere"], "give HOST PORT, or HOST:PORT"),
        (["a:1;b"], "'b': give HOST PORT, or HOST:PORT"),
        (["h", "1", "more"], "what is 'more'?"),
        (["-M", "demo", "h", "1"], "name the manager once"),
        (["-M", "demo", "--connection-file", "f"], "name the manager once"),
        (["-M", "a/demo.json"], "--connection-file takes a path"),
        ([";"], "give HOST PORT, or HOST:PORT"),
        (["h", "1", "--memory", "much"], "'much' is no size"),
        (["h", "1", "--disk", "5XB"], "'5XB' is no size"),
        (["h", "1", "--wall-time", "long"], "'long' is no time"),
        (["h", "1", "--workers", "0"], "'0' is no number from 1 to 1000"),
        (["h", "1", "--workers", "100000000"], "'100000000' is no number from 1 to 1000"),
        (["h", "99999999"], "'99999999' is no port: they go from 1 to 65535"),
        (["h:99999999"], "'99999999' is no port"),
        (["h:0;h:1"], "'0' is no port"),
        (["h", "1", "--cores", "-2"], "0 for all"),
    ],
)
def test_what_is_wrong_is_said(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in error_of(arguments, capsys)


def test_several_addresses_are_a_list() -> None:
    options = parse(["a:1;[::1]:2;"])
    assert options.addresses == [("a", 1), ("::1", 2)]
    assert options.timeout == 900, "it does not wait for ever"
    assert parse(["a:1"]).addresses == parse(["a", "1"]).addresses == []
