"""Command lines about restore jobs against a fake api: what it is asked, documents, exit codes, what people see."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gateway.api import LeftOut, Reference, RestoreState, TierOffer
from gateway.errors import ApprovalNeeded, GatewayError, OverBudget, StoreUnreachable
from tests.unit.fake_api import (
    COLD_PLAN,
    FIGURE,
    JOB,
    PLAN,
    STATUS,
    THAWING,
    FakeApi,
    Gateway,
    command_line,
    written_config,
)


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


@pytest.fixture
def gateway(
    api: FakeApi, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Gateway:
    return command_line(api, written_config(tmp_path), capsys, monkeypatch)


ID = JOB.id
RESTORE = ("restore", "orcl-prod", "--to", "/to")
WANTED = ("restore", Reference(source="orcl-prod"), Path("/to"), (), False, False, False)
PAUSED = dataclasses.replace(THAWING, state=RestoreState.PAUSED, reason="paused by ada", next_look=None)


def answers(api: FakeApi, job: Any, **changes: Any) -> None:
    """What restore and watch come to."""
    report = dataclasses.replace(api.answers["watch_job"], job=job, **changes)
    api.answers["restore"] = api.answers["watch_job"] = report


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("jobs", ("jobs",)),
        ("jobs list", ("jobs",)),
        ("jobs show 0a1", ("job", "0a1")),
        ("jobs approve 0a1", ("approve_job", "0a1", "ada")),
        ("jobs cancel 0a1", ("cancel_job", "0a1", "ada")),
        ("jobs pause 0a1", ("pause_job", "0a1", "ada")),
        ("jobs resume 0a1", ("resume_job", "0a1", None, None, "", "ada")),
        ("jobs watch 0a1", ("watch_job", "0a1")),
    ],
)
@pytest.mark.parametrize("form", ["", "--json", "--quiet"])
def test_a_verb_asks_the_api(gateway: Gateway, api: FakeApi, words: str, asked: tuple[Any, ...], form: str) -> None:
    done = gateway(*words.split(), *form.split())
    assert (done.code, api.asked[0]) == (0, asked), done.err
    assert {each[0] for each in api.asked[1:]} <= {"status"}
    assert api.closed == 1
    if form == "--json":
        found = done.document if isinstance(done.document, list) else [done.document.get("job", done.document)]
        assert {each["id"] for each in found} == {ID}


def test_terms_of_a_restore(gateway: Gateway, api: FakeApi) -> None:
    terms = "--tier", "standard", "--deadline", "6 h", "--budget", "25 USD"
    gateway(*RESTORE, *terms, "--detach")
    assert api.asked[0] == (*WANTED, "standard", timedelta(hours=6), Decimal(25), True, "ada")
    gateway("jobs", "resume", ID, *terms)
    assert ("resume_job", ID, timedelta(hours=6), Decimal(25), "standard", "ada") in api.asked


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--tier", "slow"), "bulk"),
        (("--deadline", "6"), "has no unit"),
        (("--deadline", "0 h"), "more than nothing"),
        (("--budget", "-1"), "an amount such as"),
        (("--budget", "25 EUROS"), "an amount such as"),
    ],
)
def test_terms_that_mean_nothing(gateway: Gateway, api: FakeApi, words: tuple[str, ...], said: str) -> None:
    for verb in (RESTORE, ("jobs", "resume", ID)):
        done = gateway(*verb, *words)
        assert (done.code, said in done.err) == (2, True), done.err
    assert api.asked == []


def test_the_document_of_a_dry_run(gateway: Gateway, api: FakeApi) -> None:
    answers(api, None, plan=COLD_PLAN, dry_run=True, files=0, bytes=0)
    document = gateway(*RESTORE, "--dry-run", "--json").document
    assert (document["packs"], document["bytes"], document["files"]) == (2, 4096, 3)
    assert document["by_state"] == {
        "readable": {"packs": 1, "bytes": 1024, "fetch_bytes": 512},
        "cold": {"packs": 1, "bytes": 2**30, "fetch_bytes": 1536},
    }
    assert list(document["tiers"]) == ["bulk", "standard", "expedited"]
    bulk, standard, expedited = document["tiers"].values()
    assert (bulk["usd"], bulk["hours"], bulk["fits"]) == (0.0051, 48.5, True)
    assert bulk["figures"][0]["origin"] == "list of us-east-1"
    assert (standard["usd"], standard["fits"], standard["cautions"]) == (None, True, ["no price for thawing"])
    assert (expedited["usd"], expedited["hours"], expedited["fits"]) == (None, None, False)
    assert (document["chosen"], document["scratch_bytes"], document["waves"]) == ("bulk", 2048, 2)
    # what a dry run said before there were jobs
    assert document["plan"]["packs"] == 2
    assert document["plan"]["tiers"] == document["tiers"]
    assert (document["dry_run"], document["target"], document["left_out"]) == (True, "/to", [])


def test_what_people_see_of_a_dry_run(gateway: Gateway, api: FakeApi) -> None:
    answers(api, None, plan=COLD_PLAN, dry_run=True)
    text = " ".join(gateway(*RESTORE, "--dry-run").out.split())
    assert "cold 1 1 GiB 1.5 KiB" in text
    assert "bulk 0.01 USD 48 h 30 min taken it is the cheapest" in text
    assert "standard not known 12 h 30 min fits it is not cheaper" in text
    assert "expedited not known not known does not fit DEEP_ARCHIVE has no expedited retrieval" in text
    assert "thawing from DEEP_ARCHIVE, bulk 2 GB 0.005 USD list of us-east-1" in text
    tiny = dataclasses.replace(FIGURE, amount=1.23e-6)
    bulk = dataclasses.replace(COLD_PLAN.tiers[0], figures=(tiny,))
    answers(api, None, plan=dataclasses.replace(COLD_PLAN, tiers=(bulk,)), dry_run=True)
    assert "2 GB 0.0000012 USD" in " ".join(gateway(*RESTORE, "--dry-run").out.split())
    assert "caution: no price for thawing" in text
    assert "scratch space 2 KiB at most, in 2 waves" in text
    answers(api, None, plan=dataclasses.replace(COLD_PLAN, chosen="", reason="bulk: too slow"), dry_run=True)
    done = gateway(*RESTORE, "--dry-run")
    assert "No tier fits: bulk: too slow." in done.out
    assert (done.code, "The restore would not begin: bulk: too slow." in done.err) == (22, True)
    assert gateway(*RESTORE, "--dry-run", "--json").document["chosen"] == ""


def test_a_dry_run_of_what_needs_no_thaw_has_one_price(gateway: Gateway, api: FakeApi) -> None:
    tiers = tuple(
        TierOffer(tier=tier, usd=0.25, hours=1.5, fits=True, reason="all cost the same", figures=(FIGURE,))
        for tier in ("bulk", "standard", "expedited")
    )
    hot = dataclasses.replace(PLAN, tiers=tiers, chosen="bulk", reason="bulk: all cost the same")
    answers(api, None, plan=hot, dry_run=True)
    done = gateway(*RESTORE, "--dry-run")
    text = " ".join(done.out.split())
    assert done.code == 0
    assert "no thaw 0.25 USD 1 h 30 min fits all cost the same" in text
    assert text.count("0.25 USD") == 1
    assert "Where the price comes from" in text
    answers(api, None, plan=dataclasses.replace(hot, chosen="", reason="it costs too much"), dry_run=True)
    assert gateway(*RESTORE, "--dry-run").code == 22
    answers(api, None, plan=PLAN, dry_run=True)  # an engine of before
    assert gateway(*RESTORE, "--dry-run").code == 0


def test_the_document_of_a_job(gateway: Gateway, api: FakeApi) -> None:
    document = gateway("jobs", "show", ID, "--json").document
    exact = {
        "id": ID, "state": "delivered", "packs": 2, "bytes_done": 4096, "bytes_total": 4096, "quote_usd": 0.0051,
        "spent_usd": 0.004, "requests": 9,
    }  # fmt: skip
    assert {key: document[key] for key in exact} == exact
    assert document["stages"] == {"fetched": 2}
    assert document["phases"] == {"fetching": 90.0, "thawing": 170000.0}
    listed = gateway("jobs", "--json").document
    assert listed[1] == document
    assert gateway("jobs", "list", "--json").document == listed
    api.answers["jobs"] = ()
    assert gateway("jobs", "--json").document == []
    assert "no restore jobs" in gateway("jobs").out


def test_what_people_see_of_jobs(gateway: Gateway, api: FakeApi) -> None:
    api.answers["jobs"] = (PAUSED, dataclasses.replace(JOB, quote_usd=None, spent_usd=None))
    text = " ".join(gateway("jobs").out.split())
    assert f"{ID} paused orcl-prod@17 /to 2 0 B 4 KiB 0.01 USD 0.01 USD" in text
    assert "not known not known" in text
    assert f"{ID}: paused by ada" in text
    text = " ".join(gateway("jobs", "show", ID).out.split())
    assert "quote 0.01 USD, at most 48 h 30 min" in text
    assert "its packs are 2 fetched" in text


def test_a_finished_job_says_what_it_cost_and_how_long_it_took(gateway: Gateway, api: FakeApi) -> None:
    answers(api, JOB)
    for words in (RESTORE, ("jobs", "watch", ID)):
        done = gateway(*words)
        assert done.code == 0
        assert "Quoted 0.01 USD, spent 0.01 USD in 9 requests, by bulk thaws" in done.out
        assert "fetching 1 min 30 s, thawing 47 h 13 min" in done.out
    answers(api, dataclasses.replace(JOB, tier=""))
    assert "Quoted" not in gateway(*RESTORE).out


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"state": RestoreState.THAWING}, 20, f"`gateway jobs watch {ID}`"),
        ({"state": RestoreState.PAUSED, "reason": "paused by ada"}, 20, f"`gateway jobs resume {ID}`"),
        ({"state": RestoreState.APPROVAL}, 21, f"`gateway jobs approve {ID}`"),
        ({"state": RestoreState.PAUSED, "reason": "It is too dear.", "problem": "OverBudget"}, 22, "It is too dear."),
        ({"state": RestoreState.PAUSED, "reason": "No space.", "problem": "TargetError"}, 1, "No space."),
        ({"state": RestoreState.FAILED, "reason": "Torn.", "problem": "IntegrityError"}, 13, "Torn."),
        ({"state": RestoreState.FAILED, "problem": "OfALaterVersion", "reason": "x"}, 1, "error: x"),
        ({"state": RestoreState.CANCELLED, "reason": "cancelled by bob"}, 1, "cancelled by bob"),
    ],
)
def test_a_job_that_is_not_delivered(
    gateway: Gateway, api: FakeApi, changes: dict[str, Any], code: int, said: str
) -> None:
    answers(api, dataclasses.replace(THAWING, **changes))
    for words in (RESTORE, ("jobs", "watch", ID)):
        done = gateway(*words)
        assert (done.code, said in done.err) == (code, True), done.err
        document = gateway(*words, "--json").document
        assert document["job"]["state"] == str(changes["state"])


def test_files_left_out(gateway: Gateway, api: FakeApi) -> None:
    left = (LeftOut(path=b"x", reason="exists"),)
    answers(api, dataclasses.replace(JOB, state=RestoreState.PARTIAL, left_out=1), left_out=left)
    assert gateway("jobs", "watch", ID).code == 3


@pytest.mark.parametrize("running", [True, False])
def test_a_detached_job_and_what_goes_on_with_it(gateway: Gateway, api: FakeApi, running: bool) -> None:
    api.answers["status"] = dataclasses.replace(STATUS, running=running)
    answers(api, THAWING)
    for words in ((*RESTORE, "--detach"), ("jobs", "resume", ID), ("jobs", "approve", ID)):
        done = gateway(*words)
        assert done.code == 0
        assert f"{ID} of orcl-prod@17 to /to is thawing by bulk thaws, quoted 0.01 USD" in done.out
        assert ("`gateway serve`" in done.err) == (not running)
    assert gateway(*RESTORE, "--detach", "--json").document["job"]["id"] == ID
    answers(api, JOB)  # nothing had to be waited for
    assert gateway(*RESTORE, "--detach").err == ""


def test_refusals(gateway: Gateway, api: FakeApi) -> None:
    refusals: list[tuple[GatewayError, int]] = [
        (ApprovalNeeded(f"Restore job {ID} waits for approval."), 21),
        (OverBudget("It costs too much."), 22),
    ]
    for error, code in refusals:
        api.answers["restore"] = api.answers["watch_job"] = error
        api.answers["jobs"], api.answers["job"] = (), PAUSED
        for words in (RESTORE, ("jobs", "watch", ID)):
            done = gateway(*words)
            assert (done.code, error.what in done.err, "stays" in done.err) == (code, True, False)


def test_ctrl_c_leaves_the_job(gateway: Gateway, api: FakeApi) -> None:
    api.answers["restore"] = api.answers["watch_job"] = KeyboardInterrupt()
    api.answers["job"] = THAWING
    for words in (RESTORE, ("jobs", "watch", ID)):
        done = gateway(*words, "--json")
        assert done.code == 130
        assert f"Restore job {ID} stays: it is thawing." in done.err
        assert f"`gateway jobs watch {ID}`" in done.document["error"]["advice"]
    other = dataclasses.replace(THAWING, target=Path("/other"))
    for jobs in ((), (JOB,), (other,)):  # it came to no job, or to its end
        api.answers["jobs"] = jobs
        done = gateway(*RESTORE)
        assert (done.code, "stays: it is" in done.err) == (130, False)
    api.answers["jobs"] = GatewayError("The engine is gone.")
    assert gateway(*RESTORE).code == 130
    api.answers["jobs"] = (THAWING,)
    assert "stays" not in gateway(*RESTORE, "--dry-run").err.replace("stays done", "")


def test_a_store_that_does_not_answer_leaves_the_job(gateway: Gateway, api: FakeApi) -> None:
    api.answers["restore"] = StoreUnreachable("No answer.")
    done = gateway(*RESTORE)
    assert done.code == 14
    assert f"`gateway jobs watch {ID}` goes on with it" in done.err
