// Takes the pictures of the page that the README shows: node picture.mjs URL FOLDER, while `jackpot up --demo` runs.

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { Browser } from "./browser.mjs";

const [url, folder] = process.argv.slice(2);
const browser = new Browser(process.env.CHROMIUM ?? "chromium");
for (const [name, size] of [["page-desktop", { width: 1180, height: 900 }], ["page-phone", { width: 360, height: 760, dark: true }]]) {
  const tab = await browser.open(url, size);
  await tab.until(`document.querySelectorAll("#hits li").length > 0 && document.querySelectorAll("table").length > 1`);
  await new Promise((done) => setTimeout(done, 20_000)); // The lines of amounts get long enough to be seen.
  writeFileSync(join(folder, `${name}.png`), await tab.screenshot());
}
await browser.close();
