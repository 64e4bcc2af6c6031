// The canister's pages through a local endpoint: their certificates as a gateway checks them, then the chat page in
// Chromium. Fails with a message. Takes pictures.
// Usage: node chat.mjs ENDPOINT CANISTER MODEL.gguf SCREENSHOT_FOLDER
//   CANISTER is freshly installed, and controlled by the anonymous principal. CHROMIUM names the browser, ICLLAMA the command.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import path from 'node:path';
import { verifyRequestResponsePair } from '@dfinity/response-verification';
import { HttpAgent } from '@icp-sdk/core/agent';
import { Principal } from '@icp-sdk/core/principal';
import { chromium } from 'playwright-core';

const [endpoint, canister, model, folder] = process.argv.slice(2);
const { port } = new URL(endpoint);
const ANSWER_MS = 120_000;

// A page in a browser of its own, which complains about errors of scripts and of the security policy.
async function visit(browser, url, options) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.complaints = [];
  page.on('pageerror', error => page.complaints.push(String(error)));
  page.on('console', message => { if (message.type() === 'error') page.complaints.push(message.text()); });
  await page.goto(url);
  await page.waitForFunction(() => !document.getElementById('send').disabled, null, { timeout: ANSWER_MS });
  // The likeliest answers are the same every time.
  await page.locator('footer summary').click();
  await page.getByLabel('Temperature').fill('0');
  await page.locator('footer summary').click();
  return page;
}

const say = async (page, text) => {
  await page.getByLabel('Your message').fill(text);
  await page.keyboard.press('Enter');
};
const finished = page => page.waitForFunction(() => document.getElementById('stop').hidden, null, { timeout: ANSWER_MS });
const last = (page, selector) => page.locator(selector).last().textContent();

// Two turns of a conversation, with their figures.
async function converse(browser) {
  const page = await visit(browser, `${endpoint}/?canisterId=${canister}`, { viewport: { width: 900, height: 640 } });
  assert.match(await page.textContent('#model'), /weights · context/);
  await say(page, 'What is gravity?');
  await finished(page);
  assert.match(await last(page, '.model'), /gravity/i);
  const figures = await last(page, '.figures summary');
  assert.match(figures, /^\d+ tokens · \d+ calls · [\d.]+ B instructions · about [\d.]+ B cycles · [\d.]+ s/);
  await page.locator('.figures summary').click();
  const rows = await page.locator('.figures tr').count();
  assert.ok(rows > 2, 'an answer in several calls, each with a row');
  await page.screenshot({ path: path.join(folder, 'chat.png') });
  await say(page, 'Who discovered it?');
  await finished(page);
  assert.equal(await page.locator('.model').count(), 2);
  assert.ok((await last(page, '.model')).length > 0);
  assert.deepEqual(page.complaints, []);
  return page;
}

async function stopAndBeginAnew(page) {
  const before = await page.textContent('#self');
  assert.match(before, /^([a-z0-9]{5}-){10}[a-z0-9]{3}$/, 'a principal of a key');
  await say(page, 'Tell me a long story about a king, a queen and their hundred children.');
  await page.waitForFunction(() => document.querySelectorAll('.model')[2]?.textContent.length > 0, null, { timeout: ANSWER_MS });
  await page.getByRole('button', { name: 'Stop' }).click();
  await finished(page);
  assert.match(await last(page, '.figures summary'), /stopped$/);
  await page.getByRole('button', { name: 'New chat' }).click();
  assert.equal(await page.locator('.turn').count(), 0);
  await say(page, 'Hello!');
  await finished(page);
  assert.equal(await page.locator('.problem:not([hidden])').count(), 0, 'a new chat begins');
  await page.reload();
  await page.waitForFunction(() => document.getElementById('self').textContent.includes('-'));
  assert.equal(await page.textContent('#self'), before, 'the browser keeps its key');
  assert.deepEqual(page.complaints, []);
  await page.context().close();
}

// By the canister's own host name, on a dark phone.
async function onAPhone(browser) {
  const phone = { viewport: { width: 390, height: 780 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true, colorScheme: 'dark' };
  const page = await visit(browser, `http://${canister}.localhost:${port}/`, phone);
  await say(page, 'What is the capital of France?');
  await finished(page);
  assert.match(await last(page, '.model'), /Paris/);
  await page.locator('.figures summary').tap();
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), 'nothing sticks out');
  const background = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  assert.equal(background, 'rgb(22, 22, 26)');
  await page.screenshot({ path: path.join(folder, 'chat-phone.png') });
  assert.deepEqual(page.complaints, []);
  await page.context().close();
}

async function strangersAreToldWhatToDo(browser) {
  const page = await visit(browser, `${endpoint}/?canisterId=${canister}`);
  await page.waitForFunction(() => !document.getElementById('notice').hidden);
  assert.match(await page.textContent('#notice'), /Only controllers and operators/);
  await say(page, 'Hello?');
  await finished(page);
  const told = await last(page, '.turn');
  assert.ok(told.includes(await page.textContent('#self')) && told.includes('config_set'), told);
  await page.context().close();
}

// Whether the answer at `url` is certified whole. Throws if a gateway would not show it.
async function certified(rootKey, url, status) {
  const answer = await fetch(`${endpoint}${url}?canisterId=${canister}`);
  assert.equal(answer.status, status, url);
  // What the endpoint adds is not the canister's.
  const added = name => name.startsWith('access-control-') || ['connection', 'content-length', 'date', 'keep-alive', 'vary'].includes(name);
  const headers = [...answer.headers].filter(([name]) => !added(name));
  const body = new Uint8Array(await answer.arrayBuffer());
  const verify = body => verifyRequestResponsePair({ url, method: 'GET', body: new Uint8Array(), headers: [], certificate_version: [2] },
    { status_code: status, body, headers }, Principal.fromText(canister).toUint8Array(),
    BigInt(Date.now()) * 1_000_000n, 300_000_000_000n, new Uint8Array(rootKey), 2);
  const whole = verify(body).response?.statusCode === status;
  const changed = () => verify(Uint8Array.of(...body, 32));
  if (whole) assert.throws(changed, undefined, 'a changed page is not shown'); else changed();
  return whole;
}

// What the test has the canister do besides chatting, as its controller.
const icllama = (...args) => execFileSync(process.env.ICLLAMA, [...args, '--canister', canister, '--network', endpoint], { stdio: 'inherit' });

const { rootKey } = await HttpAgent.create({ host: endpoint, shouldFetchRootKey: true });
assert.equal(await certified(rootKey, '/health', 503), false);
icllama('upload', model);
const pages = [['/', 200, true], ['/nothing', 404, true], ['/health', 200, false], ['/metrics', 200, false]];
for (const [url, status, whole] of pages) assert.equal(await certified(rootKey, url, status), whole, url);

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ['--no-sandbox'] });
try {
  await strangersAreToldWhatToDo(browser);
  icllama('config', 'set', 'generate_access=Authenticated');
  await stopAndBeginAnew(await converse(browser));
  await onAPhone(browser);
} finally {
  await browser.close();
}
const metrics = await (await fetch(`${endpoint}/metrics?canisterId=${canister}`)).text();
assert.ok(Number(metrics.match(/^icllama_generated_tokens_total (\d+)$/m)[1]) > 50, metrics);
console.log('the pages are certified, and the chat page talks');
