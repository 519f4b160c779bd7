"use strict";
// Everything that goes wrong in this page, to be asserted empty.

const problems = [];

function problem(where, error) {
  problems.push(`${where}: ${error.name ?? "Error"}: ${error.message ?? error}`);
}

addEventListener("error", (event) => problem("uncaught", event.error ?? event));
addEventListener("unhandledrejection", (event) => problem("unhandled rejection", event.reason));
