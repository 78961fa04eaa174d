// Puppeteer as its users have it: `node puppeteer.mjs <gateway> <site> <leases>`; says what it saw as JSON.
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import puppeteer from "puppeteer-core";

const [gateway, site, leases] = [process.argv[2], process.argv[3], Number(process.argv[4])];
const root = new URL(gateway);
const forms = [
  { browserWSEndpoint: gateway },
  // Of this address only host and port are used, and no header is sent: for a service that lets everybody in.
  { browserURL: `http://${root.host}/` },
];
const folder = await mkdtemp(join(tmpdir(), "tabkeeper-"));
const upload = join(folder, "up.txt");
await writeFile(upload, "12345");
const seen = [];
for (let i = 0; i < leases; i++) {
  const browser = await puppeteer.connect(forms[i % 2]);
  const downloadPath = join(folder, `${i}`);
  const context = await browser.createBrowserContext({ downloadBehavior: { policy: "allow", downloadPath } });
  const page = await context.newPage();
  await page.goto(site);
  const picture = await page.screenshot();
  await page.click("a[download]");
  let files = [];
  while (!files.some((name) => name === "report.txt")) {
    files = await readdir(downloadPath).catch(() => []);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  const input = await page.$("input");
  await input.uploadFile(upload);
  await page.waitForFunction(() => document.querySelector("#uploaded").textContent);
  const others = await Promise.all([1, 2, 3].map(() => browser.createBrowserContext()));
  const pages = await Promise.all(others.map((one) => one.newPage()));
  await Promise.all(pages.map((one, n) => one.goto(`${site}?n=${n}`)));
  await others[0].setCookie({ name: "mine", value: "1", domain: new URL(site).hostname });
  seen.push({
    title: await page.title(),
    picture: picture.length,
    download: (await readFile(join(downloadPath, "report.txt"))).length,
    uploaded: await page.$eval("#uploaded", (one) => one.textContent),
    contexts: browser.browserContexts().length - 1,
    cookies: (await others[1].cookies()).length + (await others[0].cookies()).length,
  });
  if (i % 2) await browser.close(); // gives the lease back
  else await browser.disconnect();
}
await rm(folder, { recursive: true });
console.log(JSON.stringify(seen));
