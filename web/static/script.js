// Reads the page again every few seconds, and replaces the parts that are live, unless the
// focus is in them. The page works without it.
"use strict";

const period = 5000;
const parts = () => document.querySelectorAll("[data-live]");
const pause = document.getElementById("pause");
const stale = document.getElementById("stale");
let updated = new Date();

async function refresh() {
	const answer = await fetch(location.href, {headers: {"Odx-Refresh": "1"}, credentials: "same-origin"});
	if (answer.redirected) {
		location.reload(); // the session is over
		return;
	}
	if (!answer.ok) {
		throw new Error(`status ${answer.status}`);
	}
	const next = new DOMParser().parseFromString(await answer.text(), "text/html");
	for (const part of parts()) {
		const other = next.getElementById(part.id);
		if (other && !part.contains(document.activeElement)) {
			part.replaceWith(document.adoptNode(other));
		}
	}
	updated = new Date();
	document.body.dataset.refreshed = updated.toISOString();
	stale.textContent = "";
}

if (parts().length > 0) {
	document.getElementById("refreshing").hidden = false;
	pause.addEventListener("click", () => {
		const paused = pause.getAttribute("aria-pressed") !== "true";
		pause.setAttribute("aria-pressed", String(paused));
	});
	let waiting = false;
	setInterval(async () => {
		if (waiting || document.hidden || pause.getAttribute("aria-pressed") === "true") {
			return;
		}
		waiting = true;
		try {
			await refresh();
		} catch {
			stale.textContent ||= `Not updated since ${updated.toLocaleTimeString()}; trying again.`;
		} finally {
			waiting = false;
		}
	}, period);
}
