// Playwright as its users have it: `node playwright.mjs <gateway> <site> <leases>`; says what it saw as JSON.
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const [gateway, site, leases] = [process.argv[2], process.argv[3], Number(process.argv[4])];
const forms = [gateway, gateway.replace("ws://", "http://")];
const folder = await mkdtemp(join(tmpdir(), "tabkeeper-"));
const seen = [];
for (let i = 0; i < leases; i++) {
  const browser = await chromium.connectOverCDP(forms[i % 2]);
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(site);
  const picture = await page.screenshot();
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("a[download]")]);
  const file = join(folder, `${i}.txt`);
  await download.saveAs(file);
  await page.setInputFiles("input", { name: "up.txt", mimeType: "text/plain", buffer: Buffer.from("12345") });
  await page.waitForFunction(() => document.querySelector("#uploaded").textContent);
  const uploaded = await page.textContent("#uploaded");
  const others = await Promise.all([1, 2, 3].map(() => browser.newContext()));
  const pages = await Promise.all(others.map((one) => one.newPage()));
  await Promise.all(pages.map((one, n) => one.goto(`${site}?n=${n}`)));
  await others[0].addCookies([{ name: "mine", value: "1", url: site }]);
  seen.push({
    title: await page.title(),
    picture: picture.length,
    download: (await readFile(file)).length,
    uploaded,
    contexts: browser.contexts().length - 1,
    cookies: (await others[1].cookies()).length + (await others[0].cookies()).length,
  });
  await browser.close();
}
await rm(folder, { recursive: true });
console.log(JSON.stringify(seen));
