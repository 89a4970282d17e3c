// The page works without this script. With it, lists and cases renew themselves and keys work.
"use strict";
(() => {
  const $ = (selector, from = document) => from.querySelector(selector);
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const signedIn = document.body.dataset.role !== undefined;

  // Errors first: whoever cannot see the page is told at once.
  const errors = $("#errors");
  if (errors) errors.focus();
  const opened = location.hash.length > 1 ? document.getElementById(location.hash.slice(1)) : null;
  if (opened instanceof HTMLDetailsElement) opened.open = true;

  // Relative times grow old.
  const span = (seconds) => {
    const minutes = Math.round(Math.abs(seconds) / 60);
    const d = Math.floor(minutes / 1440), h = Math.floor((minutes % 1440) / 60), m = minutes % 60;
    if (d) return h && d < 10 ? `${d} d ${h} h` : `${d} d`;
    if (h) return m ? `${h} h ${m} min` : `${h} h`;
    return m ? `${m} min` : "under 1 min";
  };
  const skew = (() => {
    const now = $("[data-now]");
    return now ? Date.parse(now.dataset.now) - Date.now() : 0;
  })();
  const tick = () => {
    const now = Date.now() + skew;
    for (const time of all("time[data-due]")) {
      const left = (Date.parse(time.dateTime) - now) / 1000;
      time.textContent = left >= 0 ? `in ${span(left)}` : `${span(left)} overdue`;
      time.className = left < 0 ? "late" : left < 4 * 3600 ? "soon" : "";
    }
    for (const time of all("time[data-relative]")) {
      const left = (Date.parse(time.dateTime) - now) / 1000;
      time.textContent = Math.abs(left) < 45 ? "now" : left > 0 ? `in ${span(left)}` : `${span(left)} ago`;
    }
  };
  setInterval(tick, 30000);

  // A form is sent once, and says so.
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.method !== "post") return;
    if (form.dataset.sent) { event.preventDefault(); return; }
    form.dataset.sent = "yes";
    form.setAttribute("aria-busy", "true");
  });
  addEventListener("pageshow", () => { for (const form of all("form[data-sent]")) { delete form.dataset.sent; form.removeAttribute("aria-busy"); } });

  // Keys
  const dialog = $("#shortcuts");
  const help = $("#help");
  if (help && dialog) { help.hidden = false; help.addEventListener("click", () => dialog.showModal()); }
  const links = () => all("#worklist tbody th a");
  const move = (by) => {
    const found = links();
    if (!found.length) return;
    const at = found.indexOf(document.activeElement);
    const next = at < 0 ? (by > 0 ? 0 : found.length - 1) : Math.min(Math.max(at + by, 0), found.length - 1);
    found[next].focus();
    found[next].closest("tr").scrollIntoView({ block: "nearest" });
  };
  const go = { w: "/", c: "/carbon", p: "/policies", a: "/about" };
  let waiting = 0;
  const inTable = () => { const a = document.activeElement; return a === document.body || a.id === "main" || !!a.closest("#worklist, .scroll"); };
  const keys = {
    "?": () => dialog && dialog.showModal(),
    "/": () => { const q = $("#q"); if (q) { q.focus(); q.select(); } else location.assign("/"); },
    j: () => move(1), k: () => move(-1),
    o: () => { if (document.activeElement.closest("#worklist tbody")) document.activeElement.click(); },
    d: () => { const decision = $("#decision"); if (decision) { decision.scrollIntoView({ block: "nearest" }); decision.focus(); } },
    r: () => { if ($("#fresh:not([hidden])")) location.assign($("#show-fresh").href); },
    g: () => { waiting = Date.now(); },
  };
  document.addEventListener("keydown", (event) => {
    if (!signedIn || event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.closest("input:not([type=checkbox], [type=radio]), textarea, select");
    if (event.key === "Escape" && typing) { typing.blur(); return; }
    if (typing || (dialog && dialog.open)) return;
    if (waiting && Date.now() - waiting < 1500 && go[event.key]) { location.assign(go[event.key]); return; }
    waiting = 0;
    if ((event.key === "ArrowDown" || event.key === "ArrowUp") && $("#worklist") && inTable()) {
      event.preventDefault();
      move(event.key === "ArrowDown" ? 1 : -1);
      return;
    }
    const act = keys[event.key];
    if (act) { event.preventDefault(); act(); }
  });

  // A job that runs is asked for now and then.
  const jobs = $("#jobs[data-busy]");
  const watch = async () => {
    try {
      const answer = await fetch("/policies", { headers: { "X-Fragment": "1" }, credentials: "same-origin" });
      if (answer.ok) {
        const got = new DOMParser().parseFromString(await answer.text(), "text/html");
        const now = $("#jobs", got);
        for (const row of all("tr[data-status]", now)) { const old = document.getElementById(row.id); if (old) old.replaceWith(document.adoptNode(row)); }
        if (now && now.dataset.busy === undefined) { location.reload(); return; }
      }
    } catch { /* asked again */ }
    setTimeout(watch, 2000);
  };
  if (jobs) setTimeout(watch, 1500);

  // Live: which cases changed comes by the stream; what they say now is asked for.
  const live = $("#live");
  if (!signedIn || !live || !window.EventSource) return;
  const words = { live: "Live", lost: "Connection lost, reconnecting", over: "Signed out" };
  const state = (now) => {
    live.hidden = false;
    if (live.dataset.state === now) return;
    live.dataset.state = now;
    const text = $(".text", live);
    text.textContent = words[now];
    if (now === "over") {
      const link = document.createElement("a");
      link.href = `/login?said=over&next=${encodeURIComponent(location.pathname + location.search)}`;
      link.textContent = "sign in again";
      text.append(", ", link);
    }
  };
  const table = $("#worklist[data-live]");
  const thisCase = $("[data-case]");
  const fresh = $("#fresh");
  const unseen = new Set();
  let pending = new Set(), timer = 0, busy = false, whole = false;

  const tell = () => {
    const n = unseen.size;
    fresh.hidden = !n && !whole;
    $(".text", fresh).textContent = whole ? "The list has changed." : `${n} ${n === 1 ? "case is" : "cases are"} new or changed.`;
  };
  const fragment = async (address) => {
    const answer = await fetch(address, { headers: { "X-Fragment": "1" }, credentials: "same-origin" });
    if (answer.status === 401) { state("over"); throw new Error("signed out"); }
    if (!answer.ok) throw new Error(String(answer.status));
    return new DOMParser().parseFromString(await answer.text(), "text/html");
  };
  const renewRows = async (ids) => {
    const query = new URLSearchParams(location.search);
    query.set("id", ids.join(","));
    const got = await fragment(`/rows?${query}`);
    const rows = new Map(all("tr", got).map((row) => [row.id, row]));
    for (const id of ids) {
      const old = document.getElementById(`case-${id}`), now = rows.get(`case-${id}`);
      if (old && now) {
        if (old.dataset.version === now.dataset.version && old.dataset.status === now.dataset.status) continue;
        const focused = old.contains(document.activeElement);
        now.classList.add("fresh");
        old.replaceWith(document.adoptNode(now));
        if (focused) $("th a", now).focus();
        unseen.delete(id);
      } else if (now && !old) unseen.add(id);
    }
    tell();
  };
  const touched = () => all("#decision form").some((form) => all("textarea, input:not([type=hidden]), select", form).some((field) =>
    field.type === "radio" || field.type === "checkbox" ? field.checked !== field.defaultChecked :
    field.options ? [...field.options].some((option) => option.selected !== option.defaultSelected) && field.selectedIndex > 0 : field.value !== field.defaultValue));
  const renewCase = async () => {
    const busyHere = touched() || (document.activeElement && document.activeElement.closest("#decision form"));
    if (busyHere || thisCase.dataset.fixed !== undefined) { fresh.hidden = false; return; }
    const got = await fragment(location.pathname);
    const now = $("[data-case]", got);
    if (!now || now.dataset.version === thisCase.dataset.version && now.dataset.seq === thisCase.dataset.seq) return;
    const open = all("details[open][id]", thisCase).map((d) => d.id);
    const focus = thisCase.contains(document.activeElement) ? document.activeElement.id : "";
    for (const name of ["version", "seq", "status"]) thisCase.dataset[name] = now.dataset[name];
    thisCase.replaceChildren(...now.childNodes);
    for (const id of open) { const d = document.getElementById(id); if (d) d.open = true; }
    if (focus) { const f = document.getElementById(focus); if (f) f.focus(); }
    const said = $("#changed-status"); if (said) said.textContent = `This case is now: ${thisCase.dataset.status.replaceAll("_", " ")}.`;
  };
  const renew = async () => {
    if (busy) { timer = setTimeout(renew, 300); return; }
    busy = true;
    const ids = [...pending];
    pending = new Set();
    try {
      if (thisCase && (whole || ids.includes(thisCase.dataset.case))) { await renewCase(); whole = false; }
      else if (table && (whole || ids.length)) {
        const shown = all("tbody tr", table).slice(0, 100).map((row) => row.id.slice(5));
        await renewRows(whole ? shown : ids);
        if (whole) tell();
      } else if ($("[data-renew]") && (whole || ids.length)) fresh.hidden = false;
    } catch { for (const id of ids) pending.add(id); }
    busy = false;
  };
  const soon = () => { clearTimeout(timer); timer = setTimeout(renew, 150); };
  let source = null, wait = 1000;
  const connect = () => {
    source = new EventSource("/changes" + (connect.last ? `?after=${encodeURIComponent(connect.last)}` : ""));
    const alive = (event) => { if (event.lastEventId) connect.last = event.lastEventId; wait = 1000; state("live"); };
    source.addEventListener("hello", alive);
    source.addEventListener("cases", (event) => { alive(event); for (const id of JSON.parse(event.data).ids) pending.add(id); soon(); });
    source.addEventListener("all", (event) => { alive(event); whole = true; soon(); });
    source.addEventListener("over", () => { source.close(); state("over"); });
    source.onerror = () => {
      if (live.dataset.state === "over") return;
      state("lost");
      source.close();
      setTimeout(again, wait);
      wait = Math.min(wait * 2, 8000);
    };
  };
  // A stream does not say why it cannot be had: whether somebody is still signed in is asked for.
  const again = async () => {
    try { await fragment("/rows?id=-"); } catch { /* the stream's own error comes next */ }
    if (live.dataset.state !== "over") connect();
  };
  connect.last = document.body.dataset.at;
  connect();
  // A browser has few connections to one server: a tab that nobody sees gives its own back.
  document.addEventListener("visibilitychange", () => {
    if (live.dataset.state === "over") return;
    if (document.hidden) { source.close(); source.onerror = null; } else if (source.readyState === 2) connect();
  });
  addEventListener("online", () => { if (live.dataset.state === "lost") { source.close(); wait = 1000; connect(); } });
})();
