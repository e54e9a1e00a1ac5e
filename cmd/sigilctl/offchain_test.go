package main_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"os"
	"regexp"
	"testing"
	"time"

	"filippo.io/age"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/client"
)

// A Solana message that is no transaction travels over the socket to its own decoder,
// is judged by a policy about messages, and comes back with a signature that verifies.
// A transaction under the same field does not.
func TestOffchainMessageOverTheSocket(t *testing.T) {
	becomeScratch(t)
	p := newPlace(t)
	b, err := readBot(p.path("bot.json"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := p.start()
	if err != nil {
		t.Fatal(err)
	}
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	rules := `{"policies":[{"id":"greetings","effect":"EFFECT_ALLOW","lang":"sigild","condition":"solana.offchain_message.version == 0 && solana.offchain_message.text == 'hello'"}]}`
	if err := os.WriteFile(p.path("rules.json"), []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	out := p.must(t, b, "delegation create", "--wallet", b.Wallet, "--user", b.User, "--recipient", identity.Recipient().String(), "--rules", "rules.json", "--key", "owner.key")
	made := regexp.MustCompile(`delegation +(dlg_\S+)`).FindStringSubmatch(out)
	if made == nil {
		t.Fatalf("delegation create says\n%s", out)
	}
	if err := poll(time.Minute, func(context.Context) error {
		if out := p.must(t, b, "delegation show "+made[1], "--key", "owner.key"); !regexp.MustCompile(`status +active`).MatchString(out) {
			return errors.New(out)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	p.must(t, b, "delegation api-key "+made[1], "--out", "key.age", "--key", "owner.key")
	sealed, err := os.ReadFile(p.path("key.age"))
	if err != nil {
		t.Fatal(err)
	}
	in, err := age.Decrypt(bytes.NewReader(sealed), identity)
	if err != nil {
		t.Fatal(err)
	}
	key, err := io.ReadAll(in)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.Dial(p.path("app.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sign := func(id string, payload []byte) (*sigilv1.SignResponse, error) {
		return c.WithAPIKey(key).Signing().Sign(t.Context(), &sigilv1.SignRequest{
			RequestId: id, WalletId: b.Wallet, Payload: &sigilv1.SignRequest_SolanaOffchainMessage{SolanaOffchainMessage: payload},
		})
	}
	message := func(text string) []byte {
		m := append([]byte("\xffsolana offchain\x00"), bytes.Repeat([]byte{9}, 32)...)
		return append(append(append(append(m, 0, 1), b.From...), byte(len(text)), 0), text...)
	}
	got, err := sign("hello", message("hello"))
	if err != nil {
		t.Fatal(err)
	}
	if !ed25519.Verify(b.From, message("hello"), got.GetSignature()) || len(got.GetSignedTransaction()) != 0 || got.GetTransactionId() != "" {
		t.Errorf("answer %v", got)
	}
	for id, c := range map[string]struct {
		payload []byte
		want    string
	}{
		"other-words": {message("goodbye"), "POLICY_DENIED"},
		"transaction": {transfer([32]byte(b.From), 1), "PAYLOAD_MALFORMED"},
		"text":        {[]byte("hello"), "PAYLOAD_MALFORMED"},
		"hello":       {message("hello!"), "REQUEST_ID_REUSED"},
	} {
		if _, err := sign(id, c.payload); client.Reason(err) != c.want {
			t.Errorf("%s: %v, want %s", id, err, c.want)
		}
	}
	if err := d.stop(); err != nil {
		t.Error(err)
	}
}
