// Publishes newline-delimited wager batches with nats.go: what a game server in Go does, without an SDK.
//
//	go mod tidy && go run . -url nats://127.0.0.1:4222 [-secret whsec_…] FILE     (FILE may be -, standard input)
//
// Each line goes, its bytes unchanged, to wagers.<operator>.<source>, one after the other. For each acknowledgement
// there is one line of JSON on standard output: {"stream": …, "seq": …, "sequence": …}. What is not acknowledged is
// published again, the very same bytes, since that is always safe. Exit 1 when a batch was not acknowledged after all;
// those after it are not published, so that the order of a source is kept. Running it again is safe.
// With -secret, batches are signed as Standard Webhooks say.
package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	acknowledgedWithin = 10 * time.Second
	attempts           = 10
	pause              = time.Second
)

// batch is what of a batch its publication needs.
type batch struct {
	Operator string `json:"operator"`
	Source   string `json:"source"`
	Sequence int64  `json:"sequence"`
}

// answer is what is printed of an acknowledgement.
type answer struct {
	Stream   string `json:"stream"`
	Seq      uint64 `json:"seq"`
	Sequence int64  `json:"sequence"`
}

func main() {
	url := flag.String("url", "", "such as nats://127.0.0.1:4222")
	secret := flag.String("secret", "", "whsec_<base64>: sign the batches")
	flag.Parse()
	if *url == "" || flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "publish: give -url URL and one file of batches, or - for standard input")
		os.Exit(2)
	}
	if err := publish(*url, *secret, flag.Arg(0)); err != nil {
		fmt.Fprintln(os.Stderr, "publish: not acknowledged:", err)
		os.Exit(1)
	}
}

func publish(url, secret, file string) error {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		return fmt.Errorf("the secret is not whsec_<base64>: %w", err)
	}
	lines, err := read(file)
	if err != nil {
		return err
	}
	connection, err := nats.Connect(url, nats.Timeout(5*time.Second))
	if err != nil {
		return err
	}
	defer connection.Close()
	stream, err := jetstream.New(connection)
	if err != nil {
		return err
	}
	for _, line := range lines {
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		var next batch
		if err := json.Unmarshal(line, &next); err != nil {
			return err
		}
		ack, err := acknowledged(stream, message(next, line, key))
		if err != nil {
			return err
		}
		printed, err := json.Marshal(answer{ack.Stream, ack.Sequence, next.Sequence})
		if err != nil {
			return err
		}
		fmt.Println(string(printed))
	}
	return nil
}

func read(file string) ([][]byte, error) {
	source := os.Stdin
	if file != "-" {
		opened, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer opened.Close()
		source = opened
	}
	all, err := io.ReadAll(source)
	return bytes.Split(all, []byte("\n")), err
}

// message is a batch as it is published, signed where there is a key: HMAC-SHA256 over id.timestamp.body.
func message(next batch, line, key []byte) *nats.Msg {
	made := nats.NewMsg("wagers." + next.Operator + "." + next.Source)
	made.Data = line
	if len(key) > 0 {
		id := fmt.Sprintf("%s/%d", next.Source, next.Sequence)
		timestamp := strconv.FormatInt(time.Now().Unix(), 10)
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(id + "." + timestamp + "."))
		mac.Write(line)
		made.Header.Set("webhook-id", id)
		made.Header.Set("webhook-timestamp", timestamp)
		made.Header.Set("webhook-signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	return made
}

// acknowledged publishes a batch until it is acknowledged: only then is it known to be stored.
func acknowledged(stream jetstream.JetStream, made *nats.Msg) (*jetstream.PubAck, error) {
	for attempt := 1; ; attempt++ {
		ctx, cancel := context.WithTimeout(context.Background(), acknowledgedWithin)
		ack, err := stream.PublishMsg(ctx, made)
		cancel()
		// No answer, or the stream is full, or the broker is away: it will pass. A batch that is too large will not.
		if err == nil || attempt == attempts || errors.Is(err, nats.ErrMaxPayload) {
			return ack, err
		}
		fmt.Fprintf(os.Stderr, "publish: again in %s: %v\n", pause, err)
		time.Sleep(pause)
	}
}
