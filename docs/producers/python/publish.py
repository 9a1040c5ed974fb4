#!/usr/bin/env python3
"""Publishes newline-delimited wager batches with nats-py: what a game server in Python does, without an SDK.

    publish.py --url nats://127.0.0.1:4222 [--secret whsec_…] FILE     (FILE may be -, standard input)

Each line goes, its bytes unchanged, to wagers.<operator>.<source>, one after the other. For each acknowledgement
there is one line of JSON on standard output: {"stream": …, "seq": …, "sequence": …}. What is not acknowledged is
published again, the very same bytes, since that is always safe. Exit 1 when a batch was not acknowledged after all;
those after it are not published, so that the order of a source is kept. Running it again is safe.
With --secret, batches are signed as Standard Webhooks say.
"""

import argparse
import asyncio
import json
import sys
from datetime import datetime, timezone

import nats
from nats.errors import MaxPayloadError
from nats.js.api import PubAck
from standardwebhooks import Webhook

ACKNOWLEDGED_WITHIN_S = 10
ATTEMPTS = 10
PAUSE_S = 1


def signature(secret: str, batch: dict, line: bytes) -> dict[str, str]:
    """The headers that sign a batch: HMAC-SHA256 over id.timestamp.body."""
    name = f"{batch['source']}/{batch['sequence']}"
    now = datetime.now(timezone.utc)
    return {
        "webhook-id": name,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(name, now, line.decode()),
    }


async def acknowledged(stream: nats.js.JetStreamContext, batch: dict, line: bytes, secret: str | None) -> PubAck:
    """Publishes a batch until it is acknowledged: only then is it known to be stored."""
    subject = f"wagers.{batch['operator']}.{batch['source']}"
    headers = signature(secret, batch, line) if secret else None
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return await stream.publish(subject, line, timeout=ACKNOWLEDGED_WITHIN_S, headers=headers)
        except MaxPayloadError:
            raise
        except Exception as error:  # No answer, or the stream is full, or the broker is away: it will pass.
            if attempt == ATTEMPTS:
                raise
            print(f"publish.py: again in {PAUSE_S} s: {type(error).__name__}: {error}", file=sys.stderr)
            await asyncio.sleep(PAUSE_S)


async def publish(url: str, lines: list[bytes], secret: str | None) -> None:
    async def note(error: Exception) -> None:
        print(f"publish.py: {error}", file=sys.stderr)

    connection = await nats.connect(
        url.split(","), allow_reconnect=True, max_reconnect_attempts=5, connect_timeout=5, error_cb=note
    )
    try:
        stream = connection.jetstream()
        for line in lines:
            batch = json.loads(line)
            ack = await acknowledged(stream, batch, line, secret)
            answer = {"stream": ack.stream, "seq": ack.seq, "sequence": batch["sequence"]}
            print(json.dumps(answer), flush=True)
    finally:
        await connection.close()


def main() -> int:
    arguments = argparse.ArgumentParser(description="Publishes newline-delimited wager batches.")
    arguments.add_argument("--url", required=True, help="such as nats://127.0.0.1:4222")
    arguments.add_argument("--secret", help="whsec_<base64>: sign the batches")
    arguments.add_argument("file", help="one batch a line; - is standard input")
    given = arguments.parse_args()
    try:
        source = sys.stdin.buffer if given.file == "-" else open(given.file, "rb")
        with source:
            lines = [line for line in source.read().split(b"\n") if line.strip()]
        asyncio.run(publish(given.url, lines, given.secret))
    except Exception as error:  # Whatever it is, the batch was not acknowledged.
        print(f"publish.py: not acknowledged: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
