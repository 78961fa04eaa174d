// Shows what the service says of itself. It only reads; text from outside is set as text, never as HTML.
import {
  byId, clock, dollars, el, fill, pill, reach, sessionLink, setText, share, show, sign, since, span, until,
} from "./parts.js";

const state = { followed: false, days: null, now: null, money: null, fleet: null, source: null, page: "", charts: {}, alertsSeen: null };

// ── talking to the service ──────────────────────────────────────────────────────────────────────────────────────

// Addresses are told from this page's own, which a reverse proxy may show under a path.
async function ask(path, options = {}) {
  const answer = await fetch(`.${path}`, { credentials: "same-origin", ...options });
  if (answer.status === 401 && path !== "/login") { toLogin(); throw new Error("logged out"); }
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({}));
    const error = new Error(problem.detail || problem.title || `answer ${answer.status}`);
    error.status = answer.status;
    throw error;
  }
  return answer.status === 204 ? null : answer.json();
}
async function login(token) {
  await ask("/login", {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ token }),
  });
}
function toLogin() {
  disconnect();
  live("", "not logged in");
  turnTo("login");
  byId("token").focus();
}
function live(kind, words) {
  byId("live").className = kind;
  setText(byId("live-text"), words);
}
function disconnect() {
  if (state.source) state.source.close();
  state.source = null;
}
function connect() {
  disconnect();
  const source = new EventSource("./events");
  state.source = source;
  source.addEventListener("now", (event) => { live("is-live", "live"); onNow(JSON.parse(event.data)); });
  source.addEventListener("fleet", (event) => { state.fleet = JSON.parse(event.data); if (state.now) onNow(state.now); });
  source.addEventListener("money", (event) => onMoney(JSON.parse(event.data)));
  source.onerror = () => {
    live("is-lost", "connection lost, trying again");
    if (source.readyState === EventSource.CLOSED) setTimeout(start, 3000);
  };
}

// ── now ─────────────────────────────────────────────────────────────────────────────────────────────────────────

const STATES = ["leased", "idle", "creating", "unhealthy", "ending"];

// Of a pool that processes share, all of it; with what only this process knows of its own sessions.
function whole(now, fleet) {
  const all = { ...now, ...now.whole, capacity: `${now.whole.sessions}/${now.max_sessions}`, of_fleet: false, reuse: now };
  if (!fleet || fleet.unread) return all;
  const own = new Map(now.open_sessions.map((one) => [one.id, one]));
  return { ...all, of_fleet: true, providers: fleet.providers, reuse: fleet.reuse, queue: fleet.queue,
    open_sessions: fleet.sessions.map((one) => ({ ...own.get(one.id), ...one })) };
}
// Columns are those of the first time; where they change, the table is begun anew.
function shape(table, kind) {
  if (table.dataset.shape === kind) return table;
  table.dataset.shape = kind;
  if (table.tHead) { table.deleteTHead(); table.tBodies[0].remove(); }
  return table;
}

function onNow(told) {
  state.now = told;
  const fleet = state.fleet;
  const now = whole(told, fleet);
  const wide = now.of_fleet ? "fleet" : "";
  show("capacity", now.capacity);
  show("queued", String(now.queued));
  show("leases", String(now.reuse.leases));
  show("reuse", now.reuse.leases ? share(now.reuse.reuse_rate) : "–");
  setText(byId("leases-of"), now.of_fleet ? "leases of the last hour" : "leases since the start");
  setText(byId("longest"), now.queue.length ? `longest for ${span(now.queue[0].waited_seconds)}` : "nobody waits");
  const parts = STATES.filter((name) => now[name] > 0).map((name) => [name, now[name]]);
  meter(byId("places"), parts.map(([name, n]) => [name, n / now.max_sessions]));
  byId("places").setAttribute("aria-label", `${now.sessions} of ${now.max_sessions} sessions: `
    + (parts.map(([name, n]) => `${n} ${name}`).join(", ") || "none"));
  const free = Math.max(0, now.max_sessions - now.sessions);
  legend(byId("places-legend"), [...parts, ["free", free]]);

  fill(shape(byId("sessions"), wide),
    [["Session"], ["Platform"], ["Provider"], ["Tenant"], ["State"], ["Uses", "n"], ["Age", "n"], ["Cost", "n"], ["Health", "n"], ["Until"],
      ...(wide ? [["Process"]] : [])],
    now.open_sessions.map((one) => ({ key: one.id, cells: [
      sessionLink(one.id), one.platform, one.provider, one.tenant, pill(one.state), String(one.uses),
      one.created_at ? span((new Date(now.at) - new Date(one.created_at)) / 1000) : "", dollars(one.cost), one.created_at ? share(one.health) : "",
      one.state === "leased" ? sign(one.lease_ends, `lease ends ${until(one.lease_ends, now.at)}`)
        : sign(one.keep_alive, `kept for ${until(one.keep_alive, now.at).slice(3)}`),
      ...(wide ? [one.process] : [])] })),
    "No session is open.");
  fill(byId("queue"),
    [["Place", "n"], ["Platform"], ["Tenant"], ["Priority", "n"], ["Waited", "n"], ["Gives up", "n"], ["Waits for", "long"], ["Who", "long"]],
    now.queue.map((one, i) => ({ key: `${one.platform}|${one.place}|${i}`, cells: [
      String(one.position), one.platform, one.tenant, String(one.priority), span(one.waited_seconds),
      `in ${span(one.gives_up_in_seconds)}`, one.blocked_by, one.place] })),
    "Nobody waits.");
  fill(byId("providers"), [["Provider"], ["Breaker"], ["Sessions", "n"], ["Again", "n"], ["Last error", "long"]],
    Object.entries(now.providers).map(([name, one]) => ({ key: name, cells: [
      name, one.state === "closed" ? "closed (well)" : one.state, `${one.sessions}/${one.max_sessions}`,
      sign(one.retry_in > 0, `in ${span(one.retry_in)}`), one.last_error] })), "No provider.");
  byId("fleet").hidden = !fleet;
  if (fleet) showProcesses(fleet);
  const jobs = fleet ? fleet.members.flatMap((member) => Object.entries(member.is_this ? now.jobs : member.jobs)
    .filter(([, one]) => one.runs > 0).map((job) => [member, ...job]))
    : Object.entries(now.jobs).map((job) => [null, ...job]);
  fill(shape(byId("jobs"), fleet ? "fleet" : ""), [...(fleet ? [["Process"]] : []), ["Job"], ["Runs", "n"], ["Failed", "n"], ["Last run", "n"], ["Result", "long"]],
    jobs.map(([member, name, one]) => ({ key: `${member ? member.process_id : ""}|${name}`, cells: [...(member ? [member.name] : []),
      name, String(one.runs), String(one.failures), since(one.last_run, now.at), one.last_result] })), "No jobs run.");
  addMinute(now);
}
function showProcesses(fleet) {
  fill(byId("processes"), [["Process"], ["Host"], ["Sessions", "n"], ["Leased", "n"], ["Waiting", "n"], ["Heard", "n"], ["", "long"]],
    fleet.members.map((one) => ({ key: one.process_id, cells: [one.name, one.host,
      ...[one.sessions, one.leased, one.waiting].map((n) => (fleet.unread ? "" : String(n))), since(one.heard_at, fleet.at),
      [sign(one.is_this, "this one"), sign(one.does_jobs, "does the jobs of all"), sign(one.leaving, "leaving")].filter(Boolean).join(", ")] })),
    "No process takes part.");
  if (fleet.unread) setText(byId("processes").caption, `Processes of the pool; its sessions and queue are this process's only: ${fleet.unread}`);
}
function meter(node, parts) {
  const known = [...node.querySelectorAll("span")];
  parts.forEach(([name, part], i) => {
    const bar = known[i] || node.appendChild(el("span"));
    bar.className = `c-${name}`;
    bar.style.width = `${Math.min(100, part * 100)}%`;
  });
  known.slice(parts.length).forEach((bar) => bar.remove());
}
function legend(node, parts) {
  const said = JSON.stringify(parts);
  if (node.dataset.said === said) return;
  node.dataset.said = said;
  node.replaceChildren(...parts.map(([name, n]) => el("li", {}, el("i", { class: `c-${name}`, "aria-hidden": "true" }), `${n} ${name}`)));
}

// ── money ───────────────────────────────────────────────────────────────────────────────────────────────────────

const USED = (one) => (Number(one.limit) ? (Number(one.spent) + Number(one.held)) / Number(one.limit) : 0);

function onMoney(money) {
  state.money = money;
  const { day, budgets } = money;
  show("day.cost", dollars(day.totals.cost));
  setText(byId("waste"), `${dollars(day.totals.idle)} of it idle; ${dollars(day.holds.amount)} held for what runs`);
  setText(byId("day-label"), `${day.label} (${day.timezone})`);
  const tight = [...budgets].sort((a, b) => USED(b) - USED(a))[0];
  setText(byId("tightest"), tight ? share(USED(tight)) : "none");
  setText(byId("tightest-name"), tight ? `of ${tight.name}: ${dollars(tight.left)} left` : "no budget is set");
  showBudgets(budgets, day);
  for (const name of ["platforms", "providers", "tenants"]) {
    fill(byId(`by-${name}`), [[name.slice(0, -1)[0].toUpperCase() + name.slice(1, -1)], ["Cost", "n"], ["Sessions", "n"], ["Leases", "n"], ["Idle", "n"]],
      day[name].map((one) => ({ key: one.name, cells: [one.name, dollars(one.cost), String(one.sessions), String(one.leases), dollars(one.idle)] })),
      "Nothing was spent.");
  }
  fill(byId("waste-table"), [["What", "long"], ["Cost", "n"]], [
    { key: "idle", cells: ["No lease used it", dollars(day.totals.idle)] },
    { key: "rounding", cells: ["Billing steps and minimums", dollars(day.totals.rounding)] },
    { key: "failed", cells: ["Leases and sessions that failed", dollars(day.totals.failed)] }], "");
  fill(byId("forecasts"), [["Window"], ["Spent", "n"], ["Low", "n"], ["Likely", "n"], ["High", "n"], ["Note", "long"]],
    day.forecasts.map((one) => ({ key: one.period, cells: [one.label, dollars(one.spent), dollars(one.p10), dollars(one.p50), dollars(one.p90), one.note] })),
    "No forecast.");
  linkReports("reports-now", [["day", day.label], ["month", day.label.slice(0, 7)]]);
  if (state.page === "money") drawSpend();
  showAlerts(money.alerts);
}
// Reports as pages: they open offline, and print.
function linkReports(id, periods) {
  const node = byId(id);
  const said = JSON.stringify(periods);
  if (node.dataset.said === said) return;
  node.dataset.said = said;
  node.hidden = !periods.length;
  const links = periods.map(([period, when]) => el("a", { href: `./reports/${period}/${when}.html` }, when));
  node.replaceChildren("Reports to read and print: ", ...links.flatMap((link, i) => (i ? [", ", link] : [link])));
}
function showBudgets(budgets, day) {
  const node = byId("budgets");
  const known = new Map([...node.children].map((one) => [one.dataset.name, one]));
  if (!budgets.length) { node.replaceChildren(el("p", { class: "dim" }, "No budget is set.")); return; }
  for (const one of budgets) {
    let box = known.get(one.name);
    if (!box) {
      box = el("div", { class: "budget", "data-name": one.name }, el("p", {}, el("strong", {}, one.name), el("span")),
        el("div", { class: "meter", role: "img" }), el("p", { class: "dim" }, el("span"), el("span")));
      node.append(box);
    }
    known.delete(one.name);
    const [head, bar, foot] = box.children;
    setText(head.lastChild, `${dollars(one.spent)} spent, ${dollars(one.held)} held, ${dollars(one.left)} left of ${dollars(one.limit)}`);
    const limit = Number(one.limit) || 1;
    const parts = [["spent", Number(one.spent) / limit], ["held", Math.min(Number(one.held) / limit, 1)]];
    meter(bar, parts);
    const ahead = day.forecasts.find((f) => f.period === one.period && one.scope === "pool" && f.p50 !== null);
    mark(bar, ahead ? Number(ahead.p50) / limit : null);
    const expected = ahead ? `, ${dollars(ahead.p50)} likely by its end (the line)` : "";
    bar.setAttribute("aria-label", `${one.name}: ${share(USED(one))} used${expected}`);
    setText(foot.firstChild, `${one.scope}, ${one.period}, ${one.mode}${expected}${sign(one.denied, `, refused ${one.denied}`)}`);
    setText(foot.lastChild, one.resets_at ? `resets ${clock(one.resets_at)}` : "does not reset");
  }
  for (const box of known.values()) box.remove();
}
function mark(bar, part) {
  let line = bar.querySelector(".mark");
  if (part === null) { if (line) line.remove(); return; }
  if (!line) { line = el("b", { class: "mark" }); bar.append(line); }
  line.style.left = `${Math.min(99.5, part * 100)}%`;
  line.style.height = "100%";
}

// ── alerts, history, one session ────────────────────────────────────────────────────────────────────────────────

function showAlerts(alerts) {
  const latest = alerts.length ? alerts[0].id : 0;
  if (state.alertsSeen !== null && latest > state.alertsSeen) setText(byId("news"), `New alert: ${alerts[0].title}: ${alerts[0].text}`);
  state.alertsSeen = latest;
  // A session that was refused never was.
  const session = (one) => (one.session_id && one.kind !== "denied" ? sessionLink(one.session_id) : "");
  fill(byId("alert-list"), [["When"], ["Severity"], ["Alert", "long"], ["What", "long"], ["Session"], ["Told"]],
    alerts.map((one) => ({ key: one.id, cells: [clock(one.at), pill(one.severity), one.title, one.text, session(one),
      Object.entries(one.delivered).map(([channel, how]) => `${channel}: ${how}`).join(", ")] })),
    "No alert was raised.");
}
async function showHistory() {
  const [ended, report] = await Promise.all([ask("/history?limit=100"), ask("/reports/day")]);
  fill(byId("ended"), [["Session"], ["Platform"], ["Provider"], ["Tenant"], ["Began"], ["Lived", "n"], ["Uses", "n"], ["Cost", "n"], ["Idle", "n"], ["Why closed", "long"]],
    ended.map((one) => ({ key: one.id, cells: [sessionLink(one.id), one.platform, one.provider, one.tenant, clock(one.created_at),
      span((new Date(one.ended_at) - new Date(one.created_at)) / 1000), String(one.uses), dollars(one.cost), dollars(one.idle), one.close_reason || one.state] })),
    "No session has ended yet.");
  state.days = report.trend.days.map((one, i) => [one.label, report.trend.total.costs[i]]).filter(([, cost]) => cost !== null);
  const labels = state.days.map(([label]) => label);
  linkReports("reports-week", [...labels.map((label) => ["day", label]), ...[...new Set(labels.map((one) => one.slice(0, 7)))].map((one) => ["month", one])]);
  drawWeek();
}
async function showSession(id) {
  setText(byId("session-title"), `Session ${id}`);
  const path = `/sessions/${encodeURIComponent(id)}`;
  const [story, why] = await Promise.all([ask(`${path}/story`), ask(path)]);
  byId("page-session").classList.remove("unknown");
  setText(byId("explained"), why.text);
  const facts = { Platform: story.platform, Provider: story.provider, Tenant: story.tenant, State: why.state,
    Began: clock(story.created_at), Ended: story.ended_at ? clock(story.ended_at) : "it runs", Cost: dollars(why.cost),
    "Of it idle": dollars(story.idle), Held: dollars(story.held), Uses: String(Math.max(story.uses, story.leases.length)) };
  byId("facts").replaceChildren(...Object.entries(facts).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
  fill(byId("leases"), [["Lease"], ["Tenant"], ["Began"], ["Took", "n"], ["Waited", "n"], ["Result"], ["Cost", "n"], ["Bytes", "n"], ["Who", "long"], ["Error", "long"]],
    story.leases.map((one) => ({ key: one.id, cells: [one.id.slice(id.length).replace(/^\./, ""), one.tenant, clock(one.granted_at),
      span((new Date(one.released_at) - new Date(one.granted_at)) / 1000), span(one.waited_seconds), one.outcome, dollars(one.cost),
      one.bytes.toLocaleString(), one.place, one.error || ""] })), story.ended_at ? "It served no lease." : "No lease has ended yet.");
  fill(byId("changes"), [["When"], ["From"], ["To"], ["Why", "long"]],
    story.changes.map((one, i) => ({ key: i, cells: [clock(one.at), one.old, pill(one.new), one.reason] })), "None is noted.");
  fill(byId("bookings"), [["When"], ["Entry"], ["Made of", "long"], ["Amount", "n"]],
    story.bookings.map((one, i) => ({ key: i, cells: [clock(one.at), `${one.kind}${sign(one.quality !== "measured", ` (${one.quality})`)}`,
      sign(one.kind === "hold", `${dollars(one.held)} is set aside`) || Object.entries(one.lines).filter(([, amount]) => Number(amount))
        .map(([kind, amount]) => `${kind.replaceAll("_", " ")} ${dollars(amount)}`).join(", ") || one.reason, dollars(one.amount)] })),
    "Nothing is booked yet.");
}

// ── charts ──────────────────────────────────────────────────────────────────────────────────────────────────────

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// Every chart says in words what it shows, and has its figures as a table below.
function chart(id, summary, heads, rows, options, data) {
  const node = byId(id);
  const said = JSON.stringify([data, node.clientWidth, colour("ink"), summary]);
  if (node.dataset.said === said || !node.clientWidth) return;
  node.dataset.said = said;
  let picture = node.querySelector(".picture");
  if (!picture) {
    picture = el("div", { class: "picture", role: "img" });
    node.append(picture, el("details", {}, el("summary", {}, "The same as a table"), el("table")));
  }
  picture.setAttribute("aria-label", summary);
  if (state.charts[id]) state.charts[id].destroy();
  const axis = { stroke: colour("dim"), font: "12px system-ui, sans-serif", grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line") } };
  options.axes = options.axes.map((one) => ({ ...axis, ...one }));
  const room = { width: node.clientWidth, height: 180, legend: { show: options.series.length > 2 }, cursor: { y: false } };
  state.charts[id] = new uPlot({ ...room, ...options }, data, picture);
  fill(node.querySelector("details table"), heads, rows, "Nothing yet.");
}
function bars(id, pairs, title) {
  const total = pairs.reduce((sum, [, cost]) => sum + Number(cost), 0);
  const top = pairs.reduce((best, one) => (Number(one[1]) > Number(best[1]) ? one : best), ["", "0"]);
  const summary = `${title}: $${total.toFixed(4)} in all${sign(top[0], `, most at ${top[0]}: $${top[1]}`)}`;
  const places = pairs.map((_, i) => i);
  chart(id, summary, [["When"], ["Cost", "n"]], pairs.map(([label, cost]) => ({ key: label, cells: [label, dollars(cost)] })), {
    scales: { x: { time: false, range: [-0.7, Math.max(pairs.length, 1) - 0.3] }, y: { range: (_, low, high) => [0, high > 0 ? high * 1.1 : 1] } },
    axes: [{ values: (_, at) => at.map((i) => (Number.isInteger(i) && pairs[i] ? pairs[i][0] : "")), incrs: [1, 2, 3, 4, 6, 12] },
      { size: 70, values: (_, at) => at.map((v) => `$${Number(v.toPrecision(4))}`) }],
    series: [{}, { label: title, fill: colour("spent"), stroke: colour("spent"), width: 0, points: { show: false },
      paths: uPlot.paths.bars({ size: [0.7, 60] }) }],
  }, [places, pairs.map(([, cost]) => Number(cost))]);
}
function drawSpend() {
  if (state.money) bars("spend", state.money.day.timeline.map((one) => [one.label, one.cost]), "Spend by hour");
}
function drawWeek() {
  if (!state.days) return;
  byId("week-none").hidden = state.days.length > 0;
  if (state.days.length) bars("week", state.days, "Cost of the last days");
}
const minutes = [];
function addMinute(now) {
  const at = Math.round(new Date(now.at) / 1000);
  const last = minutes[minutes.length - 1];
  if (last && at - last[0] < 5) return;
  minutes.push([at, now.leased, now.idle, now.queued]);
  while (minutes.length > 720 || (minutes.length && at - minutes[0][0] > 3600)) minutes.shift();
  if (state.page === "now") drawHour();
}
function drawHour() {
  const names = ["leased", "idle", "waiting"];
  const colours = ["leased", "idle", "creating"];
  const last = minutes[minutes.length - 1] || [0, 0, 0, 0];
  const rows = minutes.filter((_, i) => i % 12 === 0).map((one) => ({ key: one[0], cells: [clock(one[0] * 1000), ...one.slice(1).map(String)] }));
  chart("hour", `The last hour; now ${names.map((name, i) => `${last[i + 1]} ${name}`).join(", ")}`,
    [["When"], ["Leased", "n"], ["Idle", "n"], ["Waiting", "n"]], rows, {
      scales: { y: { range: (_, low, high) => [0, Math.max(2, high + 1)] } },
      axes: [{ values: (_, at) => at.map((one) => new Date(one * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" })), space: 90 },
        { size: 40, incrs: [1, 2, 5, 10, 20, 50, 100] }],
      series: [{}, ...names.map((name, i) => ({ label: name, stroke: colour(colours[i]), width: 2, dash: [[], [6, 3], [2, 3]][i],
        points: { show: false }, paths: uPlot.paths.stepped({ align: 1 }) }))],
    }, [0, 1, 2, 3].map((i) => minutes.map((one) => one[i])));
}

// ── pages ───────────────────────────────────────────────────────────────────────────────────────────────────────

function turnTo(page) {
  state.page = page;
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== `page-${page}`;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${page}` || (page === "session" && link.hash === "#history")) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.querySelector("nav").hidden = page === "login";
  const title = page === "login" ? "Log in" : page[0].toUpperCase() + page.slice(1);
  document.title = `${title} · Tabkeeper`;
}
async function route() {
  const [page, id] = (location.hash.slice(1) || "now").split("/", 2);
  if (!["now", "money", "history", "alerts", "session"].includes(page)) return;
  turnTo(page);
  try {
    if (page === "now") drawHour();
    if (page === "money") drawSpend();
    if (page === "history") { drawWeek(); await showHistory(); }
    if (page === "alerts") showAlerts(await ask("/alerts?limit=200"));
    if (page === "session") await showSession(decodeURIComponent(id || ""));
  } catch (error) {
    if (page === "session") { setText(byId("explained"), error.message); byId("page-session").classList.add("unknown"); }
    live("is-lost", error.message);
  }
}
async function start() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  try {
    if (given) {
      history.replaceState(null, "", "./#now");
      await login(given);
    }
    for (const one of await ask("/samples")) minutes.push([Math.round(new Date(one.at) / 1000), one.whole.leased, one.whole.idle, one.whole.queued]);
    onNow(await ask("/now"));
    connect();
    byId("logout").hidden = !document.cookie.includes("tabkeeper_logged_in=1");
    await route();
  } catch (error) {
    if (state.page === "login") return;
    if (error.status === 401) { toLogin(); return; }
    live("is-lost", error.message);
    setTimeout(start, 5000);
  }
}
byId("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  setText(byId("login-error"), "");
  try {
    await login(byId("token").value.trim());
    byId("token").value = "";
    if (!location.hash) location.hash = "#now";
    minutes.length = 0;
    await start();
    byId("main").focus();
  } catch (error) { setText(byId("login-error"), error.message); }
});
byId("logout").addEventListener("click", async () => { await ask("/logout", { method: "POST" }); toLogin(); });
addEventListener("click", (event) => { state.followed = Boolean(event.target.closest("a[href^='#']:not(.skip)")); });
addEventListener("hashchange", () => {
  if (state.followed) scrollTo(0, 0); // who goes back comes to where they were
  state.followed = false;
  if (state.page !== "login") route();
});
addEventListener("resize", () => { drawHour(); drawSpend(); drawWeek(); document.querySelectorAll(".card").forEach(reach); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { drawHour(); drawSpend(); route(); });
start();
