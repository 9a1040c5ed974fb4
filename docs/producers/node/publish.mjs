#!/usr/bin/env node
// Publishes newline-delimited wager batches with nats.js: what a game server in JavaScript does, without an SDK.
//
//     publish.mjs --url nats://127.0.0.1:4222 [--secret whsec_…] FILE     (FILE may be -, standard input)
//
// Each line goes, its bytes unchanged, to wagers.<operator>.<source>, one after the other. For each acknowledgement
// there is one line of JSON on standard output: {"stream": …, "seq": …, "sequence": …}. What is not acknowledged is
// published again, the very same bytes, since that is always safe. Exit 1 when a batch was not acknowledged after all;
// those after it are not published, so that the order of a source is kept. Running it again is safe.
// With --secret, batches are signed as Standard Webhooks say.

import { readFileSync } from "node:fs";
import { setTimeout } from "node:timers/promises";
import { parseArgs } from "node:util";

import { jetstream } from "@nats-io/jetstream";
import { connect, headers } from "@nats-io/transport-node";
import { Webhook } from "standardwebhooks";

const ACKNOWLEDGED_WITHIN_MS = 10_000;
const ATTEMPTS = 10;
const PAUSE_MS = 1_000;

/** The headers that sign a batch: HMAC-SHA256 over id.timestamp.body. */
function signature(secret, batch, line) {
  const name = `${batch.source}/${batch.sequence}`;
  const now = new Date();
  const signed = headers();
  signed.set("webhook-id", name);
  signed.set("webhook-timestamp", String(Math.floor(now.getTime() / 1000)));
  signed.set("webhook-signature", new Webhook(secret).sign(name, now, line));
  return signed;
}

/** Publishes a batch until it is acknowledged: only then is it known to be stored. */
async function acknowledged(stream, batch, line, secret) {
  const subject = `wagers.${batch.operator}.${batch.source}`;
  const signed = secret ? signature(secret, batch, line) : undefined;
  for (let attempt = 1; ; attempt++) {
    try {
      return await stream.publish(subject, line, { timeout: ACKNOWLEDGED_WITHIN_MS, headers: signed });
    } catch (error) {
      // No answer, or the stream is full, or the broker is away: it will pass. An argument that is wrong will not.
      if (attempt === ATTEMPTS || error.name === "InvalidArgumentError") {
        throw error;
      }
      console.error(`publish.mjs: again in ${PAUSE_MS / 1000} s: ${error.name}: ${error.message}`);
      await setTimeout(PAUSE_MS);
    }
  }
}

async function publish(url, lines, secret) {
  const connection = await connect({ servers: url.split(","), maxReconnectAttempts: 5, timeout: 5_000 });
  try {
    const stream = jetstream(connection);
    for (const line of lines) {
      // Whole numbers above 2^53 are read wrongly here; they are only printed and signed, so keep sequences below.
      const batch = JSON.parse(line);
      const ack = await acknowledged(stream, batch, line, secret);
      console.log(JSON.stringify({ stream: ack.stream, seq: ack.seq, sequence: batch.sequence }));
    }
  } finally {
    await connection.close();
  }
}

try {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { url: { type: "string" }, secret: { type: "string" } },
  });
  if (!values.url || positionals.length !== 1) {
    console.error("publish.mjs: give --url URL and one file of batches, or - for standard input");
    process.exit(2);
  }
  const text = readFileSync(positionals[0] === "-" ? 0 : positionals[0], "utf8");
  await publish(values.url, text.split("\n").filter((line) => line.trim()), values.secret);
} catch (error) {
  console.error(`publish.mjs: not acknowledged: ${error.name}: ${error.message}`);
  // At once: a connection that failed half-way may hold the process.
  process.exit(1);
}
