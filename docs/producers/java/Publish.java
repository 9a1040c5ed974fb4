// Publishes newline-delimited wager batches with jnats: what a game server in Java does, without an SDK.
//
//     java -cp "jars/*" Publish.java --url nats://127.0.0.1:4222 [--secret whsec_…] FILE    (FILE may be -)
//
// Java 17 or later, and these jars: io.nats:jnats:2.26.2, and org.jspecify:jspecify, org.bouncycastle:bcprov-lts8on
// which it needs. Each line goes, its bytes unchanged, to wagers.<operator>.<source>, one after the other. For each
// acknowledgement there is one line of JSON on standard output: {"stream": …, "seq": …, "sequence": …}. What is not
// acknowledged is published again, the very same bytes, since that is always safe. Exit 1 when a batch was not
// acknowledged after all; those after it are not published, so that the order of a source is kept. Running it again
// is safe. With --secret, batches are signed as Standard Webhooks say.

import io.nats.client.Connection;
import io.nats.client.JetStream;
import io.nats.client.JetStreamOptions;
import io.nats.client.Nats;
import io.nats.client.Options;
import io.nats.client.api.PublishAck;
import io.nats.client.impl.Headers;
import io.nats.client.support.JsonParser;
import io.nats.client.support.JsonValue;
import io.nats.client.support.JsonValueUtils;

import java.io.ByteArrayOutputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

public class Publish {
    static final Duration ACKNOWLEDGED_WITHIN = Duration.ofSeconds(10);
    static final int ATTEMPTS = 10;
    static final Duration PAUSE = Duration.ofSeconds(1);

    public static void main(String[] args) {
        String url = null, secret = null, file = null;
        for (int i = 0; i < args.length; i++) {
            switch (args[i]) {
                case "--url" -> url = ++i < args.length ? args[i] : null;
                case "--secret" -> secret = ++i < args.length ? args[i] : null;
                default -> file = args[i];
            }
        }
        if (url == null || file == null) {
            System.err.println("Publish: give --url URL and one file of batches, or - for standard input");
            System.exit(2);
        }
        try {
            publish(url, secret, file);
        } catch (Exception error) { // Whatever it is, the batch was not acknowledged.
            System.err.println("Publish: not acknowledged: " + error);
            System.exit(1);
        }
    }

    static void publish(String url, String secret, String file) throws Exception {
        byte[] all = file.equals("-") ? System.in.readAllBytes() : Files.readAllBytes(Path.of(file));
        Options options = new Options.Builder().servers(url.split(",")).connectionTimeout(Duration.ofSeconds(5)).build();
        try (Connection connection = Nats.connect(options)) {
            JetStream stream =
                connection.jetStream(JetStreamOptions.builder().requestTimeout(ACKNOWLEDGED_WITHIN).build());
            for (byte[] line : lines(all)) {
                JsonValue batch = JsonParser.parse(line);
                String operator = batch.map.get("operator").string, source = batch.map.get("source").string;
                long sequence = JsonValueUtils.readLong(batch, "sequence", 0);
                Headers headers = secret == null ? null : signature(secret, source + "/" + sequence, line);
                PublishAck ack = acknowledged(stream, "wagers." + operator + "." + source, headers, line);
                System.out.printf(
                    "{\"stream\": \"%s\", \"seq\": %d, \"sequence\": %d}%n", ack.getStream(), ack.getSeqno(), sequence);
            }
        }
    }

    /** The lines that are not blank, as bytes: what is signed and published is never decoded and encoded again. */
    static List<byte[]> lines(byte[] all) {
        List<byte[]> lines = new ArrayList<>();
        ByteArrayOutputStream line = new ByteArrayOutputStream();
        for (int i = 0; i <= all.length; i++) {
            if (i < all.length && all[i] != '\n') {
                line.write(all[i]);
            } else {
                if (!line.toString(StandardCharsets.UTF_8).isBlank()) {
                    lines.add(line.toByteArray());
                }
                line.reset();
            }
        }
        return lines;
    }

    /** The headers that sign a batch: HMAC-SHA256 over id.timestamp.body. */
    static Headers signature(String secret, String id, byte[] line) throws Exception {
        String timestamp = Long.toString(Instant.now().getEpochSecond());
        byte[] key = Base64.getDecoder().decode(secret.replaceFirst("^whsec_", ""));
        Mac mac = Mac.getInstance("HmacSHA256");
        mac.init(new SecretKeySpec(key, "HmacSHA256"));
        mac.update((id + "." + timestamp + ".").getBytes(StandardCharsets.UTF_8));
        String signature = Base64.getEncoder().encodeToString(mac.doFinal(line));
        return new Headers()
            .add("webhook-id", id)
            .add("webhook-timestamp", timestamp)
            .add("webhook-signature", "v1," + signature);
    }

    /** Publishes a batch until it is acknowledged: only then is it known to be stored. */
    static PublishAck acknowledged(JetStream stream, String subject, Headers headers, byte[] line) throws Exception {
        for (int attempt = 1; ; attempt++) {
            try {
                return stream.publish(subject, headers, line);
            } catch (IllegalArgumentException error) { // The batch is too large, or its subject is none.
                throw error;
            } catch (Exception error) { // No answer, or the stream is full, or the broker is away: it will pass.
                if (attempt == ATTEMPTS) {
                    throw error;
                }
                System.err.println("Publish: again in " + PAUSE.toSeconds() + " s: " + error);
                Thread.sleep(PAUSE.toMillis());
            }
        }
    }
}
