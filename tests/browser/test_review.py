"""A case in the hands of people: read, signed, overridden, sent back, asked more of."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from playwright.sync_api import Page, expect

XSS = '<img src=x onerror="window.owned=1"><script>window.owned=1</script>\'"><svg onload=owned=1>'


@pytest.fixture(scope="session")
def whole(evidence: Any) -> list[int]:
    """Rows that have every modality."""
    return [int(row) for row in np.flatnonzero(evidence.present.all(axis=1))]


def status(page: Page) -> Any:
    return page.locator("[data-case]")


def at(page: Page, value: str) -> None:
    expect(status(page)).to_have_attribute("data-status", value)


def unfold(page: Page, act: str) -> Any:
    details = page.locator(f"#act-{act}")
    details.locator("summary").click()
    return details.locator("form")


def sign(page: Page) -> None:
    page.locator("#sign").click()


def events(board: Any, case_id: str) -> list[tuple[str, dict[str, Any]]]:
    with board.api() as client:
        text = client.get(f"/v1/cases/{case_id}/events", params={"follow": "false"}).text
    datas = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    return [(step["kind"], step["data"]) for step in datas if "kind" in step]


def test_from_a_posted_case_to_two_signatures(
    make_board: Any, sit: Any, whole: Any, axe: Any
) -> None:
    board = make_board(second_review_above=0.0)
    ada = sit(board, "ada").page
    expect(ada.locator("#live")).to_have_attribute("data-state", "live")
    case_id = board.post(whole[0], reference="board-7/2", urgency=0.4)
    expect(ada.locator("#fresh")).to_be_visible()
    # Opened by keyboard alone.
    ada.keyboard.press("r")
    expect(ada.locator(f"#case-{case_id}")).to_be_visible()
    ada.keyboard.press("j")
    ada.keyboard.press("Enter")
    expect(ada).to_have_url(f"{board.url}/cases/{case_id}")
    expect(ada.get_by_role("heading", level=1)).to_have_text("board-7/2")
    kinds = [li.get_attribute("data-kind") for li in ada.locator("#timeline > li").all()]
    assert kinds == [kind for kind, _ in events(board, case_id)]
    assert kinds[:4] == ["intake", "carbon", "assessment", "choice"]
    ada.keyboard.press("d")
    expect(ada.locator("#decision")).to_be_focused()
    ada.keyboard.press("Tab")
    expect(ada.locator("#accept-comment")).to_be_focused()
    ada.keyboard.type("Seen with pathology.")
    ada.keyboard.press("Tab")
    ada.keyboard.press("Enter")
    expect(ada.locator("#confirm")).to_contain_text("first of two opinions")
    expect(ada.locator("#sign")).to_be_focused()
    ada.keyboard.press("Enter")
    at(ada, "awaiting_second")
    expect(ada.locator("#second")).to_contain_text("Another reviewer")
    assert axe(ada) == []
    assert board.case(case_id)["result"] is None

    ben = sit(board, "ben", path=f"/cases/{case_id}").page
    expect(ben.locator(".opinion[data-reviewer=dr-ada]")).to_contain_text("Seen with pathology.")
    ben.locator("#accept").click()
    sign(ben)
    at(ben, "recorded")
    expect(ben.locator("#decision")).to_contain_text("Recorded:")
    # And the first one sees it without doing anything.
    at(ada, "recorded")
    case = board.case(case_id)
    assert case["result"] in ("negative", "positive")
    kinds = [kind for kind, _ in events(board, case_id)]
    assert kinds.count("record") == 1
    expect(ben.locator("#timeline > li")).to_have_count(len(kinds))


def test_two_who_differ_go_on_until_two_agree(make_board: Any, sit: Any, whole: Any) -> None:
    board = make_board(second_review_above=0.0)
    case_id = board.post(whole[0])
    other = {"positive": "negative", "negative": "positive"}[board.case(case_id)["suggestion"]]
    ada = sit(board, "ada", path=f"/cases/{case_id}").page
    ada.locator("#accept").click()
    sign(ada)
    at(ada, "awaiting_second")
    ben = sit(board, "ben", path=f"/cases/{case_id}").page
    form = unfold(ben, "override")
    form.locator(f"input[value={other}]").check()
    form.get_by_label("Reason").select_option("clinical_judgement")
    form.get_by_role("button").click()
    sign(ben)
    at(ben, "awaiting_second")
    expect(ben.locator(".opinion")).to_have_count(2)
    assert board.case(case_id)["result"] is None
    form = unfold(ada, "override")
    form.locator(f"input[value={other}]").check()
    form.get_by_label("Reason").select_option("new_information")
    form.get_by_role("button").click()
    sign(ada)
    at(ada, "recorded")
    assert board.case(case_id)["result"] == other


def test_override_takes_a_reason(board: Any, sit: Any, whole: Any) -> None:
    case_id = board.post(whole[0])
    other = {"positive": "negative", "negative": "positive"}[board.case(case_id)["suggestion"]]
    seat = sit(board, "ada", path=f"/cases/{case_id}")
    seat.expect_complaint("422")
    page = seat.page
    form = unfold(page, "override")
    form.locator(f"input[value={other}]").check()
    form.evaluate("form => { form.noValidate = true; }")
    form.get_by_role("button").click()
    expect(page.locator("#errors")).to_be_focused()
    expect(page.locator("#errors li")).to_have_count(1)
    form = page.locator("#form-override")
    expect(form.locator(f"input[value={other}]")).to_be_checked()
    form.get_by_label("Reason").select_option("data_quality")
    form.get_by_label("Comment").fill("Sample mix-up.")
    form.get_by_role("button").click()
    expect(page.locator("#confirm")).to_contain_text("Sample mix-up.")
    sign(page)
    at(page, "recorded")
    case = board.case(case_id)
    assert case["result"] == other
    assert case["decision"]["reason_code"] == "data_quality"
    assert case["decision"]["reviewer"] == "dr-ada"


def test_cancelled_is_not_signed_and_sent_back_has_no_result(
    board: Any, sit: Any, whole: Any
) -> None:
    case_id = board.post(whole[0])
    page = sit(board, "ada", path=f"/cases/{case_id}").page
    page.locator("#accept").click()
    page.get_by_role("link", name="Cancel").click()
    at(page, "awaiting_clinician")
    form = unfold(page, "send-back")
    form.get_by_label("Reason").select_option("missing_data")
    form.get_by_role("button").click()
    sign(page)
    at(page, "sent_back")
    case = board.case(case_id)
    assert (case["status"], case["result"]) == ("sent_back", None)
    assert [kind for kind, _ in events(board, case_id)].count("decision") == 1


def test_a_skipped_transfer_is_run_and_a_modality_left_out(
    board: Any, sit: Any, whole: Any
) -> None:
    case_id = board.post(whole[0], policy="rule")
    before = board.case(case_id)
    page = sit(board, "ada", path=f"/cases/{case_id}").page
    form = unfold(page, "request")
    offered = [
        o.get_attribute("value") for o in form.locator("#request_transfer-transfer option").all()
    ]
    wanted = next(o for o in offered if o and o not in before["transfers_run"])
    form.get_by_label("Transfer", exact=True).select_option(wanted)
    form.get_by_label("Comment").fill("We want to see it.")
    form.get_by_role("button").click()
    at(page, "awaiting_clinician")
    expect(page.locator("#timeline > li[data-kind=request]")).to_have_count(1)
    after = board.case(case_id)
    assert after["transfers_run"] == [*before["transfers_run"], wanted]
    assert after["g_co2e"] >= before["g_co2e"]
    form = unfold(page, "unreliable")
    form.get_by_label("Modality", exact=True).select_option("genomics")
    form.get_by_role("button").click()
    at(page, "awaiting_clinician")
    step = page.locator("#timeline > li[data-kind=unreliable]")
    expect(step).to_have_count(1)
    expect(page.locator("#figures")).to_contain_text("genomics")
    last = board.case(case_id)
    assert not any(name.startswith("genomics->") for name in last["transfers_run"])
    kinds = [kind for kind, _ in events(board, case_id)]
    mark = kinds.index("unreliable")
    assert "assessment" in kinds[mark:]
    assert kinds.count("explanation") == 3
    page.locator("#accept").click()
    sign(page)
    at(page, "recorded")


@pytest.mark.parametrize("how", ["clock", "button", "urgency"])
def test_deferred_with_its_plan_and_woken(board: Any, sit: Any, whole: Any, how: str) -> None:
    case_id = board.post(whole[0], until="deferred", policy="planner", urgency=0.1)
    plan = board.case(case_id)["plan"]
    seat = sit(board, "ada")
    page = seat.page
    expect(page.locator(f"#case-{case_id}")).to_have_attribute("data-status", "deferred")
    page.locator(f"#case-{case_id} a").click()
    card = page.get_by_role("region", name="Plan of the wait")
    expect(card).to_contain_text(plan["why"])
    expect(card).to_contain_text("40 gCO2e/kWh expected")
    expect(page.locator("#form-accept")).to_have_count(0)
    if how == "clock":
        board.clock.ahead = timedelta(hours=6)
        board.wait_for(case_id, "awaiting_clinician")
        # Hours have passed without use: the page says so and shows nothing more of its own.
        seat.expect_complaint("401")
        seat.sign_in("ada", f"/cases/{case_id}")
    elif how == "button":
        page.get_by_role("button", name="Wake it now").click()
    else:
        form = unfold(page, "urgency")
        form.get_by_label(re.compile("^Urgency")).fill("0.9")
        form.get_by_role("button").click()
    at(page, "awaiting_clinician")
    wake = next(data for kind, data in events(board, case_id) if kind == "wake")
    assert wake["early"] is (how != "clock")
    assert wake["by"] == ("schedule" if how == "clock" else "dr-ada")
    expect(page.locator("#timeline > li[data-kind=wake]")).to_have_count(1)
    if how == "urgency":
        assert board.case(case_id)["urgency"] == 0.9
        return
    page.locator("#accept").click()
    sign(page)
    at(page, "recorded")


def test_urgency_goes_up_only(board: Any, sit: Any, whole: Any) -> None:
    case_id = board.post(whole[0], urgency=0.5)
    seat = sit(board, "ada", path=f"/cases/{case_id}")
    seat.expect_complaint("422")
    page = seat.page
    form = unfold(page, "urgency")
    form.get_by_label(re.compile("^Urgency")).fill("0.2")
    form.get_by_role("button").click()
    expect(page.locator("#errors")).to_be_visible()
    assert board.case(case_id)["urgency"] == 0.5
    page.locator("#form-urgency").get_by_label(re.compile("^Urgency")).fill("0.8")
    page.locator("#form-urgency").get_by_role("button").click()
    at(page, "awaiting_clinician")
    expect(page.locator("#timeline > li[data-kind=urgency]")).to_have_count(1)
    assert board.case(case_id)["urgency"] == 0.8


def test_an_old_form_is_answered_with_what_changed(
    board: Any, sit: Any, whole: Any, axe: Any
) -> None:
    case_id = board.post(whole[0])
    seat = sit(board, "ada", path=f"/cases/{case_id}")
    seat.expect_complaint("409")
    seat.expect_complaint("412")
    old = seat.context.new_page()
    old.goto(f"{board.url}/cases/{case_id}")
    # Somebody writes in the second tab, so it is not renewed under their hands.
    old.locator("#accept-comment").fill("my own words")
    seat.page.locator("#accept").click()
    sign(seat.page)
    at(seat.page, "recorded")
    expect(old.locator("#fresh")).to_be_visible()
    expect(old.locator("#accept-comment")).to_have_value("my own words")
    old.locator("#accept").click()
    if old.locator("#sign").is_visible():
        sign(old)
    expect(old.locator("#conflict")).to_contain_text("Nothing of what you sent was done")
    expect(old.locator("#conflict")).to_contain_text("my own words")
    assert [kind for kind, _ in events(board, case_id)].count("decision") == 1
    assert axe(old) == []
    old.get_by_role("link", name="Open the case as it is now").click()
    at(old, "recorded")


def test_signing_twice_signs_once(board: Any, sit: Any, whole: Any) -> None:
    case_id = board.post(whole[0])
    page = sit(board, "ada", path=f"/cases/{case_id}").page
    page.locator("#accept").click()
    page.locator("#form-confirm").evaluate(
        "form => { const data = new URLSearchParams(new FormData(form));"
        "return Promise.all([1, 2, 3].map(() => fetch(form.getAttribute('action'), {"
        "method: 'POST', body: data}).then(answer => answer.status))); }"
    )
    page.goto(f"{board.url}/cases/{case_id}")
    at(page, "recorded")
    assert [kind for kind, _ in events(board, case_id)].count("decision") == 1


def test_what_could_not_go_on_is_parked_and_tried_again(
    board: Any, sit: Any, whole: Any, axe: Any
) -> None:
    board.trouble.append("MRN-778899 broke it")
    case_id = board.post(whole[0], until="parked")
    seat = sit(board, "ada", path=f"/cases/{case_id}")
    page = seat.page
    expect(page.get_by_text("Parked.", exact=True)).to_be_visible()
    assert "MRN-778899" not in page.content()
    assert axe(page) == []
    board.trouble.clear()
    page.get_by_role("button", name="Try again").click()
    at(page, "awaiting_clinician")
    page.locator("#accept").click()
    sign(page)
    at(page, "recorded")
    kinds = [kind for kind, _ in events(board, case_id)]
    assert (kinds.count("parked"), kinds.count("record")) == (1, 1)


def test_a_viewer_reads_and_has_no_forms(board: Any, sit: Any, whole: Any) -> None:
    case_id = board.post(whole[0])
    deferred = board.post(whole[1], until="deferred", policy="planner")
    seat = sit(board, "guest", path=f"/cases/{case_id}")
    page = seat.page
    for path in (f"/cases/{case_id}", f"/cases/{deferred}"):
        seat.goto(path)
        expect(page.locator("#decision")).to_contain_text("cannot act on it")
        expect(page.locator("#decision form, #decision button, #decision input")).to_have_count(0)
        expect(page.locator("#timeline > li").first).to_be_visible()
    seat.expect_complaint("403")
    token = page.locator("form[action='/logout'] input[name=csrf]").get_attribute("value")
    answer = page.evaluate(
        "([path, token]) => fetch(path, {method: 'POST', body: new URLSearchParams({csrf: token, "
        "action: 'accept', version: '', seq: '0', nonce: 'n', confirm: 'yes'})})"
        ".then(answer => answer.status)",
        [f"/cases/{case_id}/act", token],
    )
    assert answer == 403
    assert board.case(case_id)["status"] == "awaiting_clinician"


def test_without_script_everything_needed_works(board: Any, sit: Any, whole: Any) -> None:
    case_id = board.post(whole[0], reference="plain")
    page = sit(board, "ada", script=False).page
    page.get_by_label("Search").fill("plain")
    page.get_by_role("button", name="Apply").click()
    page.get_by_role("link", name="plain").click()
    expect(page.locator("#timeline > li").first).to_be_visible()
    page.locator("#accept-comment").fill("by hand")
    page.locator("#accept").click()
    sign(page)
    expect(page.locator("#decision")).to_contain_text("Recorded:")
    assert board.case(case_id)["decision"]["comment"] == "by hand"
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("API key")).to_be_visible()


def test_what_people_write_is_text(board: Any, sit: Any, whole: Any) -> None:
    case_id = board.post(whole[0], reference=XSS, unit=XSS, session="{{7*7}}${7*7}")
    page = sit(board, "ada").page
    expect(page.locator(f"#case-{case_id}")).to_contain_text("onerror")
    page.locator(f"#case-{case_id} a").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(XSS)
    page.locator("#accept-comment").fill(XSS)
    page.locator("#accept").click()
    expect(page.locator("#confirm")).to_contain_text("onerror")
    sign(page)
    at(page, "recorded")
    expect(page.locator("#decision")).to_contain_text("onerror")
    expect(page.locator("#timeline")).to_contain_text("onerror")
    assert page.locator("img[src=x], svg[onload]").count() == 0
    assert "49" not in page.locator("h1").inner_text()
    assert page.evaluate("window.owned") is None
    page.goto(f"{board.url}/?" + urlencode({"q": XSS}))
    expect(page.get_by_label("Search")).to_have_value(XSS)
    assert page.evaluate("window.owned") is None
