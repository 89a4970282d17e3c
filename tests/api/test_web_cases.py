"""The worklist and a case's page: what they show, what a person does, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from html import unescape
from typing import Any

import httpx
import numpy as np
import pytest

from agent.workflow.doubles import StillMonitor
from agent.workflow.rephrase import Rephrased, RephraseError
from distill.errors import FeatureError

KEYS = {"viewer": "viewer-key", "reviewer": "reviewer-key", "admin": "admin-key"}
NASTY = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> \u202eevil"


def hidden(page: str, name: str, form: str = "") -> str:
    if form:
        page = page[page.index(f'id="{form}"') :]
    found = re.search(rf'name="{name}" value="([^"]*)"', page)
    assert found is not None, f"no field {name}"
    return unescape(found[1])


def fields_of(page: str, form: str) -> dict[str, str]:
    """Every hidden field of a form, as a browser would send it."""
    part = page[page.index(f'id="{form}"') :]
    part = part[: part.index("</form>")]
    found = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', part)
    return {name: unescape(value) for name, value in found}


def words_of(page: str) -> str:
    """What a reader sees, in one line."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page)).split())


class Person:
    """Somebody at the page, with an API client of the same role beside it."""

    def __init__(self, running: Any, role: str) -> None:
        self.page = httpx.Client(base_url=running.url, timeout=20)
        form = self.page.get("/login")
        answer = self.page.post(
            "/login", data={"key": KEYS[role], "csrf": hidden(form.text, "csrf")}
        )
        assert answer.status_code == 303
        self.api = running.client(role)

    def get(self, path: str, status: int = 200, **kwargs: Any) -> str:
        answer = self.page.get(path, **kwargs)
        assert answer.status_code == status, answer.text[:500]
        return answer.text

    def act(self, case_id: str, form: str, **fields: str) -> httpx.Response:
        page = self.get(f"/cases/{case_id}")
        given = {**fields_of(page, form), **fields}
        return self.page.post(f"/cases/{case_id}/act", data=given)

    def sign(self, case_id: str, form: str, **fields: str) -> httpx.Response:
        """Fill a form, then sign it on the page that asks again."""
        confirm = self.act(case_id, form, **fields)
        assert confirm.status_code == 200, confirm.text[:500]
        return self.page.post(f"/cases/{case_id}/act", data=fields_of(confirm.text, "form-confirm"))


@pytest.fixture
def people() -> Iterator[Callable[[Any, str], Person]]:
    made: list[Person] = []

    def make(running: Any, role: str) -> Person:
        made.append(Person(running, role))
        return made[-1]

    yield make
    for person in made:
        person.page.close()
        person.api.close()


People = Callable[[Any, str], Person]


def post(person: Person, body: Callable[[int], dict[str, Any]], row: int, **given: Any) -> str:
    answer = person.api.post("/v1/cases", json={**body(row), **given})
    assert answer.status_code == 202, answer.text
    case_id: str = answer.json()["id"]
    return case_id


def test_the_list_finds_filters_and_sorts(serve: Any, body: Any, people: People) -> None:
    with serve(policy="never") as running:
        me = people(running, "reviewer")
        calm = post(me, body, 0, reference="calm", urgency=0.1, unit="Chest 100%")
        urgent = post(me, body, 1, reference="urgent", urgency=0.9, deadline="2090-01-01T00:00:00Z")
        for case_id in (calm, urgent):
            until_status(me, case_id, "awaiting_clinician")
        page = me.get("/")
        assert page.index(f"case-{urgent}") < page.index(f"case-{calm}")
        assert "Needs decision" in page
        row = page[page.index(f'id="case-{urgent}"') :]
        assert "Urgent" in row[: row.index("</tr>")]
        for query, there, missing in (
            ({"q": "calm"}, calm, urgent),
            ({"q": "chest 100%"}, calm, urgent),
            ({"q": urgent[:10]}, urgent, calm),
            ({"min_urgency": "0.5"}, urgent, calm),
            ({"due": "overdue", "q": ""}, "0 cases", urgent),
            ({"show": "closed"}, "No case fits", calm),
            ({"status": "awaiting_clinician", "q": "urg", "policy": ""}, urgent, calm),
        ):
            text = me.get("/", params=query)
            assert there in text, query
            assert missing not in text, query
        by_name = me.get("/", params={"sort": "reference"})
        assert by_name.index(f"case-{calm}") < by_name.index(f"case-{urgent}")
        assert 'aria-sort="ascending"' in by_name
        assert "No case fits" in me.get("/", params={"q": "a_b%"})
        assert me.page.get("/", params={"sort": "nonsense"}).status_code == 422
        rows = me.get("/rows", params={"id": f"{calm},{urgent}", "q": "calm"})
        assert calm in rows
        assert urgent not in rows


def until_status(person: Person, case_id: str, *statuses: str) -> dict[str, Any]:
    for _ in range(400):
        case: dict[str, Any] = person.api.get(f"/v1/cases/{case_id}").json()
        if case["status"] in statuses:
            return case
        person.api.get("/healthz")
    raise AssertionError(case["status"])


def test_a_case_shows_every_figure(serve: Any, body: Any, people: People) -> None:
    with serve(policy="always-everything") as running:
        me = people(running, "reviewer")
        case_id = post(me, body, 2, reference="p-17", deadline="2090-01-01T00:00:00Z")
        case = until_status(me, case_id, "awaiting_clinician")
        page = me.get(f"/cases/{case_id}")
        seen = words_of(page)
        assert f"{case['probability']:.2f}" in seen
        assert f"{case['uncertainty']:.2f}" in seen
        for name in case["transfers_run"]:
            assert name.replace("->", " → ") in seen
        for what in ("Research use only", "Missing data", "Predicted gain", "modelled", "Deadline"):
            assert what in seen
        for figure in ("chart-evidence", "chart-contributions"):
            assert f'id="{figure}"' in page or not case["explanation"]["weighting"]
        assert page.count('<li class="step') == len(events(me, case_id))
        assert f'data-version="{case["version"]}"' in page
        for line in case["explanation"]["lines"][:2]:
            assert line.partition("->")[0] in seen


def events(person: Person, case_id: str) -> list[str]:
    text = person.api.get(f"/v1/cases/{case_id}/events", params={"follow": "false"}).text
    return re.findall(r"^id: \d+", text, re.MULTILINE)


def test_what_callers_write_is_never_markup(shared_server: Any, body: Any, people: People) -> None:
    running = shared_server
    me = people(running, "reviewer")
    nasty = NASTY.replace(" \u202eevil", "")
    case_id = post(me, body, 3, reference=nasty, unit=nasty, session=nasty)
    until_status(me, case_id, "awaiting_clinician")
    confirm = me.act(case_id, "form-accept", comment=NASTY)
    assert confirm.status_code == 200
    answer = me.page.post(f"/cases/{case_id}/act", data=fields_of(confirm.text, "form-confirm"))
    assert answer.status_code == 303
    for page in (me.get("/"), me.get(f"/cases/{case_id}"), confirm.text, me.get("/carbon")):
        assert "<script>alert" not in page
        assert "<img" not in page
    stored = me.api.get(f"/v1/cases/{case_id}").json()
    assert stored["decision"]["comment"] == NASTY
    assert "<bdi>" in me.get("/")


def test_accepting_is_asked_again_then_signed_once(
    shared_server: Any, body: Any, people: People
) -> None:
    running = shared_server
    me = people(running, "reviewer")
    case_id = post(me, body, 4)
    case = until_status(me, case_id, "awaiting_clinician")
    confirm = me.act(case_id, "form-accept", comment="Agreed.")
    assert "Sign and record" in confirm.text
    assert "dr-reviewer" in confirm.text
    assert me.api.get(f"/v1/cases/{case_id}").json()["status"] == "awaiting_clinician"
    given = fields_of(confirm.text, "form-confirm")
    first = me.page.post(f"/cases/{case_id}/act", data=given)
    again = me.page.post(f"/cases/{case_id}/act", data=given)
    for answer in (first, again):
        assert answer.headers["location"] == f"/cases/{case_id}?done=accept"
    done = until_status(me, case_id, "recorded")
    assert done["result"] == case["suggestion"]
    assert done["decision"]["reviewer"] == "dr-reviewer"
    assert done["decision"]["comment"] == "Agreed."
    page = me.get(first.headers["location"])
    assert "Your decision is signed." in page
    assert "<form" not in page[page.index('id="decision"') : page.index('id="about-title"')]


def test_an_incomplete_form_is_told_beside_its_field(
    shared_server: Any, body: Any, people: People
) -> None:
    running = shared_server
    me = people(running, "reviewer")
    case_id = post(me, body, 5, urgency=0.4)
    until_status(me, case_id, "awaiting_clinician")
    answer = me.act(case_id, "form-override", comment="kept <as typed>")
    assert answer.status_code == 422
    assert 'id="errors"' in answer.text
    assert 'role="alert"' in answer.text
    for field in ("override-result", "override-reason_code"):
        assert f'href="#{field}"' in answer.text
        assert f'id="{field}-error"' in answer.text
    assert "kept &lt;as typed&gt;</textarea>" in answer.text
    for form, fields, field in (
        ("form-urgency", {"urgency": "0.3"}, "raise_urgency-urgency"),
        ("form-urgency", {"urgency": "nan"}, "raise_urgency-urgency"),
        ("form-send-back", {"reason_code": "other"}, "send_back-comment"),
        ("form-send-back", {"reason_code": "nonsense"}, "send_back-reason_code"),
        ("form-unreliable", {"reason_code": "data_quality"}, "mark_unreliable-modality"),
        ("form-unreliable", {"modality": "clinical", "reason_code": "other", "comment": "x"},
         "mark_unreliable-modality"),
    ):  # fmt: skip
        wrong = me.act(case_id, form, **fields)
        assert wrong.status_code == 422, (form, fields)
        assert f'id="{field}-error"' in wrong.text, (form, fields)
    assert (
        me.page.post(
            f"/cases/{case_id}/act",
            data={"csrf": hidden(me.get("/"), "csrf"), "action": "explode"},
        ).status_code
        == 422
    )


def test_a_stale_form_is_told_what_changed(shared_server: Any, body: Any, people: People) -> None:
    running = shared_server
    me, other = people(running, "reviewer"), people(running, "admin")
    case_id = post(me, body, 6, urgency=0.2)
    until_status(me, case_id, "awaiting_clinician")
    confirm = me.act(case_id, "form-override", result="negative",
                     reason_code="clinical_judgement", comment="not lost")  # fmt: skip
    raised = other.act(case_id, "form-urgency", urgency="0.9")
    assert raised.headers["location"].endswith("done=raise_urgency")
    answer = me.page.post(f"/cases/{case_id}/act", data=fields_of(confirm.text, "form-confirm"))
    assert answer.status_code == 412
    assert 'id="conflict"' in answer.text
    assert "dr-admin" in answer.text
    assert "not lost" in answer.text
    assert me.api.get(f"/v1/cases/{case_id}").json()["result"] is None


def test_a_skipped_transfer_and_an_unreliable_modality_come_back(
    shared_server: Any, body: Any, people: People
) -> None:
    running = shared_server
    me = people(running, "reviewer")
    page, case_id = with_all_data(me, body)
    options = re.findall(r'<option value="([a-z]+-&gt;[a-z]+)"', page)
    transfer = unescape(options[0])
    answer = me.act(case_id, "form-request", transfer=transfer, reason_code="new_information")
    assert answer.headers["location"].endswith("done=request_transfer")
    case = until_status(me, case_id, "awaiting_clinician")
    assert case["transfers_run"] == [transfer]
    source = transfer.partition("->")[0]
    if source != "clinical":
        me.act(case_id, "form-unreliable", modality=source, reason_code="data_quality")
        case = until_status(me, case_id, "awaiting_clinician")
        assert source in case["explanation"]["unreliable"]
    seen = words_of(me.get(f"/cases/{case_id}"))
    assert "asked for a skipped transfer" in seen


def with_all_data(me: Person, body: Any) -> tuple[str, str]:
    for row in range(10, 40):
        case_id = post(me, body, row)
        until_status(me, case_id, "awaiting_clinician")
        page = me.get(f"/cases/{case_id}")
        if 'id="form-request"' in page and 'id="form-unreliable"' in page:
            return page, case_id
    raise AssertionError("no case has everything")


def test_two_reviewers_sign_and_see_each_other(serve: Any, body: Any, people: People) -> None:
    with serve(policy="never", second_review_above=0.0) as running:
        first, second = people(running, "reviewer"), people(running, "admin")
        case_id = post(first, body, 7)
        until_status(first, case_id, "awaiting_clinician")
        assert "two reviewers have to agree" in first.get(f"/cases/{case_id}")
        assert "first of two opinions" in first.act(case_id, "form-accept").text
        first.sign(case_id, "form-accept", comment="Looks right.")
        until_status(first, case_id, "awaiting_second")
        mine = first.get(f"/cases/{case_id}")
        assert "Yours is the last opinion" in mine
        assert 'id="form-accept"' not in mine
        theirs = second.get(f"/cases/{case_id}")
        assert "dr-reviewer" in theirs
        assert "Looks right." in theirs
        # The API refuses what the page does not offer.
        forged = first.page.post(
            f"/cases/{case_id}/act",
            data={"csrf": hidden(mine, "csrf"), "action": "accept", "confirm": "yes"},
        )
        assert forged.status_code == 409
        assert second.sign(case_id, "form-accept").status_code == 303
        assert until_status(second, case_id, "recorded")["result"] is not None


def test_a_deferred_case_shows_its_plan_and_wakes(serve: Any, body: Any, people: People) -> None:
    monitor = StillMonitor(g_per_kwh=300.0, ahead=(250.0, 50.0, 100.0))
    with serve(monitor=monitor, policy="tests-defer") as running:
        book = running.app.state.server.kit.policies
        book._make = lambda name: DeferFirst(running.app)
        book._loaded.clear()
        me = people(running, "reviewer")
        case_id = post(me, body, 6, reference="waits")
        until_status(me, case_id, "deferred")
        page = me.get(f"/cases/{case_id}")
        assert "Plan of the wait" in page
        assert "waits" in me.get("/carbon")
        answer = me.page.post(f"/cases/{case_id}/wake", data=fields_of(page, "form-wake"))
        assert answer.headers["location"].endswith("done=wake")
        until_status(me, case_id, "awaiting_clinician")
        assert "Woken by dr-reviewer" in words_of(me.get(f"/cases/{case_id}"))
        # Raising the urgency wakes too.
        case_id = post(me, body, 7, urgency=0.2)
        until_status(me, case_id, "deferred")
        me.act(case_id, "form-urgency", urgency="0.9")
        assert until_status(me, case_id, "awaiting_clinician")["urgency"] == 0.9


class DeferFirst:
    """Waits where it may, else stops."""

    name = "tests-defer"

    def __init__(self, app: Any) -> None:
        self._catalogue = app.state.server.kit.catalogue

    def reset(self, num_envs: int, seed: int) -> None: ...

    def act(self, observation: Any, action_mask: Any) -> Any:
        may = action_mask[:, self._catalogue.defer]
        return np.where(may, self._catalogue.defer, self._catalogue.finalise).astype(np.int64)

    def reason(self, observation: Any, action: int) -> str:
        return "a test defers what may be deferred"


def test_a_parked_case_says_why_and_can_be_tried_again(
    serve: Any, body: Any, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(policy="never") as running:
        me = people(running, "reviewer")
        student = running.app.state.server.kit.student
        whole = type(student).assess
        monkeypatch.setattr(type(student), "assess", broken)
        case_id = post(me, body, 5)
        until_status(me, case_id, "parked")
        page = me.get(f"/cases/{case_id}")
        assert "Parked" in page
        assert "the agent could not go on" in page
        assert 'id="form-retry"' in page
        assert 'id="form-override"' in page
        assert "Parked" in me.get("/", params={"show": "todo"})
        monkeypatch.setattr(type(student), "assess", whole)
        assert me.act(case_id, "form-retry").headers["location"].endswith("done=retry")
        until_status(me, case_id, "awaiting_clinician")


def broken(*_: Any) -> Any:
    raise FeatureError("the scanner's export is cut short")


class OtherWords:
    """Puts everything in the same other words, or says that it cannot."""

    def __init__(self, text: str | None) -> None:
        self._text = text

    def rephrase(self, explanation: Any) -> Rephrased:
        if self._text is None:
            raise RephraseError("The language model does not answer.")
        return Rephrased(mark="Machine-written", text=self._text, model="m", source=[])


def test_other_words_are_marked_and_not_kept(shared_server: Any, body: Any, people: People) -> None:
    running = shared_server
    me, viewer = people(running, "reviewer"), people(running, "viewer")
    server = running.app.state.server
    case_id = post(me, body, 9)
    until_status(me, case_id, "awaiting_clinician")
    assert 'id="form-words"' not in me.get(f"/cases/{case_id}")
    object.__setattr__(server, "rephraser", OtherWords("Other <words>."))
    try:
        page = me.get(f"/cases/{case_id}")
        assert 'id="form-words"' not in viewer.get(f"/cases/{case_id}")
        given = fields_of(page, "form-words")
        told = me.page.post(f"/cases/{case_id}/words", data=given).text
        assert "Machine-written" in told
        assert "Other &lt;words&gt;." in told
        object.__setattr__(server, "rephraser", OtherWords(None))
        silent = me.page.post(f"/cases/{case_id}/words", data=given)
        assert (silent.status_code, "does not answer" in silent.text) == (200, True)
    finally:
        object.__setattr__(server, "rephraser", None)
    assert "Other" not in json.dumps(me.api.get(f"/v1/cases/{case_id}").json()["explanation"])


def test_a_viewer_sees_no_forms_and_can_force_none(
    shared_server: Any, body: Any, people: People
) -> None:
    running = shared_server
    me, viewer = people(running, "reviewer"), people(running, "viewer")
    case_id = post(me, body, 8)
    until_status(me, case_id, "awaiting_clinician")
    page = viewer.get(f"/cases/{case_id}")
    assert "Viewer" in page
    assert f'action="/cases/{case_id}' not in page
    assert "<form" not in page[page.index('id="main"') :].partition("<footer")[0]
    forced = viewer.page.post(
        f"/cases/{case_id}/act", data={"csrf": hidden(page, "csrf"), "action": "accept"}
    )
    assert forced.status_code == 403
    assert 'id="form-comparison"' not in viewer.get("/policies")
    assert (
        viewer.page.post("/policies/comparisons", data={"csrf": hidden(page, "csrf")}).status_code
        == 403
    )
    assert me.api.get(f"/v1/cases/{case_id}").json()["status"] == "awaiting_clinician"


def test_an_unknown_case_is_a_page(shared_server: Any, people: People) -> None:
    running = shared_server
    me = people(running, "reviewer")
    page = me.get("/cases/nobody", status=404)
    assert "There is nothing here" in page
    assert "nobody" not in words_of(page)


def test_the_stream_tells_which_cases_changed_and_what_was_missed(
    serve: Any, body: Any, people: People
) -> None:
    with serve(policy="never", ping_s=1.0) as running:
        me = people(running, "reviewer")
        at = re.search(r'data-at="([^"]+)"', me.get("/"))
        assert at is not None
        case_id = post(me, body, 9)
        until_status(me, case_id, "awaiting_clinician")
        told = first_event(me.page, "cases", after=at[1])
        assert case_id in told
        # Of another run of the server nothing is known: look at everything again.
        assert first_event(me.page, "all", after="deadbeef-3") == '{"ids":[]}'
        # Signed out meanwhile: the stream says so and ends.
        running.app.state.server.web.sessions.close(me.page.cookies["greenboard_session"])
        assert me.page.get("/changes").status_code == 303


def first_event(page: httpx.Client, kind: str, **params: str) -> str:
    with page.stream("GET", "/changes", params=params) as stream:
        seen = ""
        for line in stream.iter_lines():
            if line.startswith("event:"):
                seen = line.partition(": ")[2]
            if line.startswith("data:") and seen == kind:
                return line.partition(": ")[2]
    raise AssertionError(f"no {kind} came")
