// Looks at the live page as people do, on a desktop and on a phone: node page.mjs URL. Each line of standard input is a
// step, `name argument`; each is answered on standard output by one line of JSON once it is so. `../page.rs` gives the
// steps, and knows what must be seen.

import { createInterface } from "node:readline";
import { Browser } from "./browser.mjs";

const url = process.argv[2];
const browser = new Browser(process.env.CHROMIUM ?? "chromium");
const desktop = await browser.open(url, { width: 1200, height: 900 });
const phone = await browser.open(url, { width: 360, height: 700, dark: true });
const tabs = [desktop, phone];
const all = (expression) => Promise.all(tabs.map((tab) => tab.until(expression)));

/** Text too faint for its ground, by the formula of WCAG 2.2: below 4.5 to 1. */
function faint() {
  const rgb = (text) => text.match(/[\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const part = (value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const colour = rgb(getComputedStyle(node).backgroundColor);
      if (colour.length === 3 || colour[3] > 0.99) return colour;
    }
    return [255, 255, 255];
  };
  const faults = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === Node.TEXT_NODE && child.data.trim());
    if (!own || !node.checkVisibility()) continue;
    const [one, other] = [light(rgb(getComputedStyle(node).color)), light(ground(node))];
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (contrast < 4.5) faults.push(`contrast ${contrast.toFixed(2)}: ${node.outerHTML.slice(0, 120)}`);
  }
  return faults;
}

/** What a reader of screens or a keyboard would miss. */
function unnamed() {
  const faults = [];
  if (!document.documentElement.lang) faults.push("the page names no language");
  if (!document.title) faults.push("the page has no title");
  if (document.querySelectorAll("main").length !== 1 || document.querySelectorAll("h1").length !== 1) faults.push("not one main, one h1");
  const ids = [...document.querySelectorAll("[id]")].map(({ id }) => id);
  if (new Set(ids).size !== ids.length) faults.push("an id comes twice");
  let level = 1;
  for (const heading of document.querySelectorAll("h1, h2, h3")) {
    const next = Number(heading.tagName[1]);
    if (next > level + 1) faults.push(`a level of headings is left out before ${heading.textContent}`);
    level = next;
  }
  for (const control of document.querySelectorAll("input, button, summary")) {
    if (!(control.labels?.length || control.textContent.trim())) faults.push(`no label: ${control.outerHTML}`);
    if (control.checkVisibility() && control.getBoundingClientRect().height < 24) faults.push(`too small to touch: ${control.outerHTML}`);
  }
  for (const table of document.querySelectorAll("table")) if (!table.caption) faults.push("a table has no caption");
  for (const drawing of document.querySelectorAll("svg")) if (!drawing.closest("[aria-hidden=true], template")) faults.push("a drawing is read out");
  for (const live of document.querySelectorAll("[aria-live], [role=status], [role=log], [role=alert]")) {
    if (live.querySelector(".amount")) faults.push("amounts that tick are read out");
  }
  return faults;
}

const steps = {
  /** Every level is shown with that amount, and no other level; the large number is the exact one, cut. */
  async amounts(argument) {
    const wanted = JSON.parse(argument);
    const shown = `JSON.stringify(Object.fromEntries([...document.querySelectorAll(".level")].map(({ dataset }) => [dataset.level, dataset.current]).sort()))`;
    await all(`${shown} === ${JSON.stringify(JSON.stringify(wanted))}`);
    return Promise.all(tabs.map((tab) => tab.eval(`Object.fromEntries([...document.querySelectorAll(".level")].map((card) =>
      [card.dataset.level, [card.querySelector(".amount span").textContent, card.querySelector(".exact").textContent, card.querySelector("time").textContent]]))`)));
  },
  async stale() {
    await all(`!document.getElementById("alarm-text").hidden && document.getElementById("alarm-text").textContent.startsWith("Stale: ")
      && [...document.querySelectorAll(".level .mark")].every((mark) => mark.checkVisibility())`);
    return desktop.eval(`document.getElementById("alarm-text").textContent`);
  },
  fresh: () => all(`document.getElementById("alarm-text").hidden && [...document.querySelectorAll(".level .mark")].every((mark) => mark.hidden)`),
  /** A hit is read out, and in the list. */
  async heard() {
    await all(`document.getElementById("heard").textContent.startsWith("Hit: ") && document.querySelectorAll("#hits li").length > 0`);
    return desktop.eval(`document.getElementById("heard").textContent`);
  },
  silent: () => Promise.all(tabs.map((tab) => tab.eval(`document.getElementById("heard").textContent`))),
  /** The whole page by keyboard alone: it pauses, and says so. */
  async keys() {
    await desktop.press("Tab", 9);
    if ((await desktop.eval(`document.activeElement.id`)) !== "pause") throw new Error("the first key does not lead to Pause");
    await desktop.press(" ", 32, " ");
    await desktop.until(`document.getElementById("alarm-text").textContent.startsWith("Paused")`);
    await desktop.press(" ", 32, " ");
    await desktop.until(`document.getElementById("alarm-text").hidden`);
    await desktop.press("Tab", 9);
    return desktop.eval(`document.activeElement.id`);
  },
  /** What is wrong with it. */
  async faults() {
    const faults = [];
    for (const tab of tabs) {
      faults.push(...(await tab.eval(`(${faint})()`)), ...(await tab.eval(`(${unnamed})()`)));
      faults.push(...tab.complaints, ...tab.requests.filter((asked) => asked !== url && asked !== `${url}events` && !asked.startsWith("data:")));
    }
    const wide = await phone.eval(`document.documentElement.scrollWidth`);
    if (wide > 360) faults.push(`on a phone the page is ${wide} wide`);
    return faults;
  },
  /** Broken connections that the browser told of; there are none but where the server was ended. */
  broken: async () => tabs.flatMap((tab) => tab.networkErrors),
};

for await (const line of createInterface({ input: process.stdin })) {
  const [name, argument] = line.split(/ (.*)/s);
  console.log(JSON.stringify((await steps[name](argument)) ?? null));
}
await browser.close();
