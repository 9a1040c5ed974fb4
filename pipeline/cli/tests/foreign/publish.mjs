#!/usr/bin/env node
// Publishes newline-delimited wager batches with nats.js: what a game server in JavaScript does, without an SDK.
//
//     publish.mjs --url nats://127.0.0.1:4222 [--secret whsec_…] FILE     (FILE may be -, standard input)
//
// Each line goes, its bytes unchanged, to wagers.<operator>.<source>, one after the other. For each acknowledgement
// there is one line of JSON on standard output: {"stream": …, "seq": …, "sequence": …}. Exit 1 when a batch was not
// acknowledged; those after it are not published, so that the order of a source is kept. Running it again is safe.
// With --secret, batches are signed as Standard Webhooks say.

import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";

import { jetstream } from "@nats-io/jetstream";
import { connect, headers } from "@nats-io/transport-node";
import { Webhook } from "standardwebhooks";

const ACKNOWLEDGED_WITHIN_MS = 10_000;

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

async function publish(url, lines, secret) {
  const connection = await connect({ servers: url, maxReconnectAttempts: 5, timeout: 5_000 });
  try {
    const stream = jetstream(connection);
    for (const line of lines) {
      const batch = JSON.parse(line);
      const ack = await stream.publish(`wagers.${batch.operator}.${batch.source}`, line, {
        timeout: ACKNOWLEDGED_WITHIN_MS,
        headers: secret ? signature(secret, batch, line) : undefined,
      });
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
  process.exitCode = 1;
}
