/**
 * The live view: asks /whoami again and again, and draws how the answers spread over the replicas.
 *
 * Nothing here writes HTML or style attributes, so the page works under `Content-Security-Policy: default-src 'self'`.
 */

const CONCURRENT_REQUESTS = 4;
const PAUSE_MS = 120; // between two requests of one asker: about 30 requests per second in all, little load
const TIMEOUT_MS = 5000;
const AFTER_ERROR_MS = 1000;
const SILENT_AFTER_MS = 3000; // a replica that has not answered for so long is shown as gone
const ANNOUNCE_EVERY_MS = 10000; // a screen reader must not be flooded
const STOP_AFTER_MS = 10 * 60 * 1000; // a forgotten tab must not ask for ever
const RECENT_ANSWERS = 60;
const COLOURS = 8; // as many as the style sheet has

const byId = (id) => document.getElementById(id);
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
const url = byId("live").dataset.url;

/** Everything counted so far; `replicas` maps a container id to its entry. */
let tally;
/** The current run; its `signal` ends the requests of a run that was stopped. `null` while stopped. */
let run = null;
let wantsToRun = false;
let drawRequested = false;

function newTally() {
  return { total: 0, errors: 0, replicas: new Map(), recent: [] };
}

/** Count one answer; a replica that is new or back starts a new comparison of the shares. */
function countAnswer({ container, release }) {
  const now = performance.now();
  let replica = tally.replicas.get(container);
  if (!replica) {
    replica = { container, colour: tally.replicas.size % COLOURS, answers: 0, compared: 0, silent: true, view: null };
    tally.replicas.set(container, replica);
  }
  if (replica.silent) {
    replica.silent = false;
    startComparison();
  }
  replica.release = release;
  replica.answers += 1;
  replica.compared += 1;
  replica.lastAnswer = now;
  tally.total += 1;
  remember(replica.colour);
}

function countError() {
  tally.errors += 1;
  remember("error");
}

function remember(kind) {
  tally.recent.push(kind);
  if (tally.recent.length > RECENT_ANSWERS) {
    tally.recent.shift();
  }
}

function startComparison() {
  for (const replica of tally.replicas.values()) {
    replica.compared = 0;
  }
}

/** Mark replicas that stopped answering; without this a scaled-down replica would spoil the comparison for ever. */
function findSilentReplicas() {
  const limit = performance.now() - SILENT_AFTER_MS;
  for (const replica of tally.replicas.values()) {
    if (!replica.silent && replica.lastAnswer < limit) {
      replica.silent = true;
      startComparison();
    }
  }
}

/** The busiest replica's answers divided by the idlest one's, or a dash while there is nothing to compare. */
function evenness() {
  const counts = [...tally.replicas.values()].filter((replica) => !replica.silent).map((replica) => replica.compared);
  const fewest = Math.min(...counts);
  return counts.length > 1 && fewest > 0 ? (Math.max(...counts) / fewest).toFixed(2) : "–";
}

/** One asker: a request, a pause, the next request, until the run is over. */
async function ask(signal) {
  while (!signal.aborted) {
    const seenBy = tally;
    try {
      const endsWith = AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]);
      const response = await fetch(url, { cache: "no-store", signal: endsWith });
      if (!response.ok) {
        throw new Error(`status ${response.status}`);
      }
      const answer = await response.json();
      // What was asked before "Start over" does not count.
      if (seenBy === tally) {
        countAnswer(answer);
      }
    } catch {
      if (signal.aborted) {
        return;
      }
      if (seenBy === tally) {
        countError();
      }
      await wait(AFTER_ERROR_MS);
    }
    requestDraw();
    await wait(PAUSE_MS);
  }
}

function element(tag, className, parent) {
  const made = document.createElement(tag);
  made.className = className;
  parent.append(made);
  return made;
}

function makeReplicaView(replica) {
  const item = element("li", `replica colour-${replica.colour}`, byId("replicas"));
  const head = element("div", "replica-head", item);
  element("code", "replica-id", head).textContent = replica.container;
  const note = element("span", "replica-note muted", head);
  const numbers = element("span", "replica-numbers", head);
  const track = element("div", "track", item);
  track.setAttribute("aria-hidden", "true");
  return { item, note, numbers, bar: element("div", "bar", track) };
}

function drawReplica(replica, mostAnswers) {
  replica.view ??= makeReplicaView(replica);
  const { item, note, numbers, bar } = replica.view;
  const share = ((100 * replica.answers) / tally.total).toFixed(1);
  item.classList.toggle("silent", replica.silent);
  note.textContent = replica.silent ? "silent" : `release ${replica.release}`;
  numbers.textContent = `${replica.answers} · ${share} %`;
  bar.style.transform = `scaleX(${replica.answers / mostAnswers})`;
}

function drawRecent() {
  const strip = byId("recent");
  while (strip.childElementCount < RECENT_ANSWERS) {
    element("span", "", strip);
  }
  const empty = RECENT_ANSWERS - tally.recent.length;
  [...strip.children].forEach((cell, index) => {
    cell.className = index < empty ? "" : `colour-${tally.recent[index - empty]}`;
  });
}

function draw() {
  drawRequested = false;
  const replicas = [...tally.replicas.values()];
  const mostAnswers = Math.max(...replicas.map((replica) => replica.answers));
  byId("total").textContent = tally.total;
  byId("seen").textContent = replicas.length;
  byId("evenness").textContent = evenness();
  byId("errors").textContent = tally.errors;
  byId("errors").classList.toggle("bad", tally.errors > 0);
  byId("empty").hidden = replicas.length > 0;
  replicas.forEach((replica) => drawReplica(replica, mostAnswers));
  drawRecent();
}

/** Draw once per frame, however many answers arrive in between. */
function requestDraw() {
  if (!drawRequested) {
    drawRequested = true;
    requestAnimationFrame(draw);
  }
}

function announce() {
  byId("announcement").textContent =
    `${tally.total} answers from ${tally.replicas.size} replicas, most to fewest ${evenness()}, ${tally.errors} errors.`;
}

function begin() {
  if (run) {
    return;
  }
  const controller = new AbortController();
  // Nobody was asked during a break: no replica is silent because of it.
  tally.replicas.forEach((replica) => (replica.lastAnswer = performance.now()));
  const timers = [setInterval(watch, 500), setInterval(announce, ANNOUNCE_EVERY_MS)];
  const stopTimer = setTimeout(() => stop("Stopped after ten minutes."), STOP_AFTER_MS);
  run = { controller, timers, stopTimer };
  for (let asker = 0; asker < CONCURRENT_REQUESTS; asker += 1) {
    ask(controller.signal);
  }
  showState(`Asking ${url}, ${CONCURRENT_REQUESTS} requests at a time.`);
}

function watch() {
  findSilentReplicas();
  requestDraw();
}

function end(why) {
  if (!run) {
    return;
  }
  run.controller.abort();
  run.timers.forEach(clearInterval);
  clearTimeout(run.stopTimer);
  run = null;
  showState(why);
}

function showState(text) {
  byId("live-state").textContent = text;
  byId("toggle").textContent = wantsToRun ? "Stop" : "Start";
}

function start() {
  wantsToRun = true;
  begin();
}

function stop(why = "Stopped.") {
  wantsToRun = false;
  end(why);
  announce();
}

function startOver() {
  tally = newTally();
  byId("replicas").replaceChildren();
  draw();
}

byId("toggle").addEventListener("click", () => (wantsToRun ? stop() : start()));
byId("reset").addEventListener("click", startOver);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    end("Paused while this tab is hidden.");
  } else if (wantsToRun) {
    begin();
  }
});

startOver();
byId("live").hidden = false;
// Somebody who asked for less motion starts it when they want to.
if (!reducedMotion.matches) {
  wantsToRun = true;
  if (!document.hidden) {
    begin();
  }
}
