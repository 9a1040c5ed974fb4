// A headless Chromium, driven over a pipe by its own protocol: what the tests of the page need of it, and no package.
// Used by page.mjs alone.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe"];

/** How long a condition may take: builds and other tests share the machine. */
const PATIENCE_MS = 90_000;

export class Browser {
  constructor(program) {
    this.profile = mkdtempSync(join(tmpdir(), "page-"));
    this.process = spawn(program, [...FLAGS, `--user-data-dir=${this.profile}`, "about:blank"], { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
    this.process.on("error", (error) => {
      console.error(`${program} cannot be run (${error.message}); install Debian's chromium`);
      process.exit(1);
    });
    this.asked = 0;
    this.answers = new Map();
    this.listeners = [];
    let text = "";
    this.process.stdio[4].setEncoding("utf8").on("data", (more) => {
      const messages = (text + more).split("\0");
      text = messages.pop();
      messages.forEach((message) => this.hear(JSON.parse(message)));
    });
  }

  hear(message) {
    const answer = this.answers.get(message.id);
    if (!answer) return this.listeners.forEach((listener) => listener(message));
    this.answers.delete(message.id);
    if (message.error) answer.no(new Error(message.error.message));
    else answer.yes(message.result);
  }

  ask(method, params = {}, sessionId = undefined) {
    const id = ++this.asked;
    this.process.stdio[3].write(JSON.stringify({ id, method, params, sessionId }) + "\0");
    return new Promise((yes, no) => this.answers.set(id, { yes, no }));
  }

  /** Opens a tab that shows `url`; what goes wrong in it, and whom it asks, is noted from the start. */
  async open(url, { width, height, dark = false, scale = 1 }) {
    const { targetId } = await this.ask("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await this.ask("Target.attachToTarget", { targetId, flatten: true });
    const tab = new Tab(this, sessionId);
    this.listeners.push((message) => message.sessionId === sessionId && tab.note(message));
    for (const domain of ["Page", "Runtime", "Network", "Log"]) await tab.ask(`${domain}.enable`);
    await tab.ask("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: scale, mobile: width < 600 });
    const features = [{ name: "prefers-color-scheme", value: dark ? "dark" : "light" }];
    await tab.ask("Emulation.setEmulatedMedia", { features });
    await tab.ask("Page.navigate", { url });
    return tab;
  }

  async close() {
    const ended = new Promise((done) => this.process.once("exit", done));
    await this.ask("Browser.close").catch(() => this.process.kill());
    await ended;
    rmSync(this.profile, { recursive: true, force: true, maxRetries: 5 });
  }
}

class Tab {
  constructor(browser, session) {
    Object.assign(this, { browser, session, complaints: [], requests: [], networkErrors: [] });
  }

  ask(method, params = {}) {
    return this.browser.ask(method, params, this.session);
  }

  note({ method, params }) {
    if (method === "Network.requestWillBeSent") this.requests.push(params.request.url);
    if (method === "Runtime.exceptionThrown") this.complaints.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
    if (method === "Runtime.consoleAPICalled") this.complaints.push(JSON.stringify(params.args));
    if (method === "Log.entryAdded") (params.entry.source === "network" ? this.networkErrors : this.complaints).push(params.entry.text);
  }

  /** What an expression of the page gives, as JSON. */
  async eval(expression) {
    const params = { expression, returnByValue: true, awaitPromise: true };
    const { result, exceptionDetails } = await this.ask("Runtime.evaluate", params);
    if (exceptionDetails) throw new Error(`${expression}: ${exceptionDetails.exception?.description}`);
    return result.value;
  }

  /** Waits until an expression of the page is true. */
  async until(expression) {
    const deadline = Date.now() + PATIENCE_MS;
    while (!(await this.eval(expression))) {
      if (Date.now() > deadline) throw new Error(`still not so: ${expression}; the page says:\n${await this.eval("document.body.innerText")}`);
      await new Promise((done) => setTimeout(done, 50));
    }
  }

  /** Presses a key as a keyboard does. */
  async press(key, code, text = undefined) {
    const params = { key, code: key, windowsVirtualKeyCode: code, text };
    await this.ask("Input.dispatchKeyEvent", { type: "keyDown", ...params });
    await this.ask("Input.dispatchKeyEvent", { type: "keyUp", ...params });
  }

  async screenshot() {
    const { data } = await this.ask("Page.captureScreenshot", { format: "png" });
    return Buffer.from(data, "base64");
  }
}
