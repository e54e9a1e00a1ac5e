package main_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"os"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/rlp"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/credential"
)

// stampPlace is an appliance with a running daemon, and what a root member and a
// delegated application need to have requests to vendors stamped.
type stampPlace struct {
	place
	t      *testing.T
	daemon *daemon
	bot    bot
	root   *client.Client
	age    *age.X25519Identity
}

const (
	turnkeyOrg  = "f9f0a6c4-2b1c-4d0a-9d5e-0c3a1b2c3d4e"
	dfnsWallet  = "wa-6uunn-bm6ja-f6rmod5kqrk5rbel"
	stampWallet = "0x9cad63e4c09a9bd195568fc662835046c3605873"
	challenge   = "MWM0MmY5YTQ0MDRiNzdhNTFhNzY5ODQwNWI5ZTQ4Y2RhODZiNDk3ZTYzOTE5OGYyMDcxZjBjYzk4MmQ5YzY1MA"
)

var payee = common.HexToAddress("0x00000000000000000000000000000000000000aa")

func newStampPlace(t *testing.T) *stampPlace {
	t.Helper()
	becomeScratch(t)
	s := &stampPlace{place: newPlace(t), t: t}
	var err error
	if s.bot, err = readBot(s.path("bot.json")); err != nil {
		t.Fatal(err)
	}
	s.daemon = startFor(t, s.place)
	if s.age, err = age.GenerateX25519Identity(); err != nil {
		t.Fatal(err)
	}
	s.write("age.txt", s.age.String()+"\n")
	treasurer, err := credential.LoadKey(s.path("treasurer.key"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.Dial(s.path("app.sock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	s.root = c.WithStamps(s.bot.Organization, treasurer)
	return s
}

func (s *stampPlace) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(s.path(name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stampPlace) ctl(args ...string) string {
	s.t.Helper()
	out, err := s.sigilctl(args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// stampable is a wallet that a vendor keeps, and who may have requests for it stamped.
type stampable struct {
	delegation, wallet string
	key                []byte
}

// bind binds a credential under rules.
func (s *stampPlace) bind(credentialID, signWith, chain, address, rules string) stampable {
	s.t.Helper()
	s.write("rules.json", rules)
	out := s.ctl("vendor-credential", "bind", credentialID, "--organization", s.bot.Organization, "--sign-with", signWith, "--chain", chain, "--address", address,
		"--name", "theirs", "--user", s.bot.User, "--recipient", s.age.Recipient().String(), "--rules", "rules.json", "--key", "treasurer.key")
	fields := strings.Fields(out)
	b := stampable{delegation: fields[1], wallet: fields[3]}
	shown, err := s.root.Delegations().GetDelegation(s.t.Context(), &sigilv1.GetDelegationRequest{OrganizationId: s.bot.Organization, DelegationId: b.delegation})
	if err != nil {
		s.t.Fatal(err)
	}
	r, err := age.Decrypt(bytes.NewReader(shown.GetEncryptedApiKey()), s.age)
	if err != nil {
		s.t.Fatal(err)
	}
	if b.key, err = io.ReadAll(r); err != nil {
		s.t.Fatal(err)
	}
	return b
}

// unsigned is an EVM transaction that pays wei to payee.
func unsigned(t *testing.T, nonce uint64, wei int64) []byte {
	t.Helper()
	b, err := rlp.EncodeToBytes([]any{uint64(1), nonce, big.NewInt(1), big.NewInt(2), uint64(21_000), payee, big.NewInt(wei), []byte{}, types.AccessList{}})
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte{types.DynamicFeeTxType}, b...)
}

func turnkeyBody(unsigned []byte, at time.Time) []byte {
	return fmt.Appendf(nil, `{"type":"ACTIVITY_TYPE_SIGN_TRANSACTION_V2","timestampMs":"%d","organizationId":"%s","parameters":{"signWith":"%s","unsignedTransaction":"%x","type":"TRANSACTION_TYPE_ETHEREUM"}}`,
		at.UnixMilli(), turnkeyOrg, stampWallet, unsigned)
}

func (s *stampPlace) turnkey(b stampable, id string, body []byte) (*sigilv1.StampRequestResponse, error) {
	return s.root.WithAPIKey(b.key).Stamping().StampRequest(s.t.Context(), &sigilv1.StampRequestRequest{
		RequestId: id, WalletId: b.wallet, Request: &sigilv1.StampRequestRequest_Turnkey{Turnkey: &sigilv1.TurnkeyRequest{Body: body}},
	})
}

func (s *stampPlace) wantReason(what string, err error, want string) {
	s.t.Helper()
	if got := client.Reason(err); got != want {
		s.t.Errorf("%s: %q (%v), want %s", what, got, err, want)
	}
}

func checkP256(t *testing.T, public, message, signature []byte) {
	t.Helper()
	key, err := credential.ParsePublicKey(credential.P256, public)
	if err != nil {
		t.Fatal(err)
	}
	if err := key.Verify(message, signature); err != nil {
		t.Error(err)
	}
}

// checkStamp verifies an X-Stamp over body as Turnkey says it does.
func checkStamp(t *testing.T, value string, body, public []byte) {
	t.Helper()
	text, err := base64.RawURLEncoding.DecodeString(value)
	if err != nil {
		t.Fatal(err)
	}
	var stamp struct{ PublicKey, Scheme, Signature string }
	if err := json.Unmarshal(text, &stamp); err != nil || stamp.Scheme != "SIGNATURE_SCHEME_TK_API_P256" || stamp.PublicKey != hex.EncodeToString(public) {
		t.Fatalf("the stamp is %s (%v)", text, err)
	}
	signature, err := hex.DecodeString(stamp.Signature)
	if err != nil {
		t.Fatal(err)
	}
	checkP256(t, public, body, signature)
}

const stampRules = `{"policies":[{"id":"p","name":"small","effect":"EFFECT_ALLOW","condition":"eth.tx.to == '0x00000000000000000000000000000000000000aa' && eth.tx.value <= 500 && eth.tx.data == '0x'"}],
	"limits":[{"id":"l","name":"in all","asset":"eip155:1/slip44:60","max":"22"}]}`

// A Turnkey credential lives its whole life on a running daemon: made here, bound,
// it stamps what a policy allows and nothing that administers; limits, pauses, a kill
// and its revocation hold as for any signature.
func TestTurnkeyRequestsAreStamped(t *testing.T) {
	s := newStampPlace(t)
	out := s.ctl("vendor-credential", "create", "--organization", s.bot.Organization, "--name", "turnkey", "--turnkey", turnkeyOrg, "--key", "treasurer.key")
	fields := strings.Fields(out)
	id := fields[1]
	public, err := hex.DecodeString(fields[3])
	if err != nil || len(public) != 33 || !strings.Contains(out, "BEGIN PUBLIC KEY") {
		t.Fatalf("made\n%s", out)
	}
	b := s.bind(id, stampWallet, "eip155", stampWallet, stampRules)

	// Allowed, through the tool and from a program; the same id is the same stamp.
	body := turnkeyBody(unsigned(t, 1, 5), time.Now())
	s.write("body.json", string(body))
	s.write("api.key", string(b.key))
	first := s.ctl("stamp", "turnkey", "--wallet", b.wallet, "--body", "body.json", "--api-key", "api.key", "--request-id", "one")
	value, ok := strings.CutPrefix(strings.TrimSpace(strings.Split(first, "\n")[0]), "X-Stamp: ")
	if !ok {
		t.Fatalf("the tool prints %q", first)
	}
	checkStamp(t, value, body, public)
	again, err := s.turnkey(b, "one", body)
	if err != nil || again.GetHeader().GetValue() != value || again.GetHeader().GetName() != "X-Stamp" {
		t.Fatalf("the same id: %v, %v", again, err)
	}
	if !strings.Contains(again.GetSummary(), "5") || again.GetRule() == "" || again.GetJournalSequence() == 0 {
		t.Errorf("the answer says %v", again)
	}

	// Refused.
	now := time.Now()
	_, err = s.turnkey(b, "one", turnkeyBody(unsigned(t, 2, 5), now))
	s.wantReason("the same id for another body", err, "REQUEST_ID_REUSED")
	_, err = s.turnkey(b, "one", turnkeyBody(unsigned(t, 1, 5), now.Add(time.Second)))
	s.wantReason("the same id for another time", err, "REQUEST_ID_REUSED")
	_, err = s.turnkey(b, "much", turnkeyBody(unsigned(t, 2, 501), now))
	s.wantReason("above the policy", err, "POLICY_DENIED")
	_, err = s.turnkey(b, "nonce", turnkeyBody(unsigned(t, 1, 6), now))
	s.wantReason("another transaction under a nonce", err, "POLICY_DENIED")
	_, err = s.turnkey(b, "old", turnkeyBody(unsigned(t, 2, 5), now.Add(-10*time.Minute)))
	s.wantReason("an old body", err, "BODY_EXPIRED")
	_, err = s.turnkey(b, "ahead", turnkeyBody(unsigned(t, 2, 5), now.Add(10*time.Minute)))
	s.wantReason("a body for later", err, "BODY_EXPIRED")
	for _, admin := range []string{"CREATE_POLICY_V3", "CREATE_API_KEYS_V2", "EXPORT_WALLET", "DELETE_POLICY", "UPDATE_ROOT_QUORUM", "INIT_USER_EMAIL_RECOVERY", "APPROVE_ACTIVITY", "SIGN_RAW_PAYLOADS"} {
		_, err = s.turnkey(b, "admin", bytes.Replace(body, []byte("SIGN_TRANSACTION_V2"), []byte(admin), 1))
		s.wantReason(admin, err, "VENDOR_ACTIVITY_DENIED")
	}
	_, err = s.turnkey(b, "org", bytes.Replace(body, []byte("f9f0"), []byte("f9f1"), 1))
	s.wantReason("another organization", err, "VENDOR_ACTIVITY_DENIED")
	_, err = s.turnkey(b, "raw", fmt.Appendf(nil, `{"type":"ACTIVITY_TYPE_SIGN_RAW_PAYLOAD_V2","timestampMs":"%d","organizationId":"%s","parameters":{"signWith":"%s","payload":"%064x","encoding":"PAYLOAD_ENCODING_HEXADECIMAL","hashFunction":"HASH_FUNCTION_NO_OP"}}`,
		now.UnixMilli(), turnkeyOrg, stampWallet, 7))
	s.wantReason("a bare digest", err, "RAW_DIGEST_DENIED")
	_, err = s.turnkey(b, "twice", bytes.Replace(body, []byte(`{"type"`), []byte(`{"type":"ACTIVITY_TYPE_CREATE_POLICY","type"`), 1))
	s.wantReason("a member twice", err, "PAYLOAD_MALFORMED")
	_, err = s.turnkey(b, "form", bytes.Replace(body, []byte("TRANSACTION_TYPE_ETHEREUM"), []byte("TRANSACTION_TYPE_TEMPO"), 1))
	s.wantReason("another chain's form", err, "PAYLOAD_NOT_UNDERSTOOD")
	_, err = s.root.WithAPIKey(b.key).Signing().Sign(t.Context(), &sigilv1.SignRequest{RequestId: "sign", WalletId: b.wallet, Payload: &sigilv1.SignRequest_EvmTransaction{EvmTransaction: unsigned(t, 3, 5)}})
	s.wantReason("a signature of a wallet that is not here", err, "REQUEST_INVALID")
	_, err = s.root.WithAPIKey(b.key).Stamping().StampRequest(t.Context(), &sigilv1.StampRequestRequest{RequestId: "none", WalletId: b.wallet})
	s.wantReason("nothing to stamp", err, "REQUEST_INVALID")
	_, err = s.root.WithAPIKey(b.key).Stamping().StampRequest(t.Context(), &sigilv1.StampRequestRequest{RequestId: "dfns", WalletId: b.wallet,
		Request: &sigilv1.StampRequestRequest_Dfns{Dfns: &sigilv1.DfnsRequest{Method: "POST", Path: "/wallets/" + dfnsWallet + "/signatures", Body: body, Challenge: challenge}}})
	s.wantReason("another vendor's request", err, "VENDOR_ACTIVITY_DENIED")
	_, err = s.root.Stamping().StampRequest(t.Context(), &sigilv1.StampRequestRequest{RequestId: "nokey", WalletId: b.wallet})
	s.wantReason("no API key", err, "API_KEY_INVALID")

	// The limit: 22 wei in all, so the fifth payment of 5 is too much.
	spent := 1
	for ; spent < 10; spent++ {
		if _, err = s.turnkey(b, fmt.Sprint("limit-", spent), turnkeyBody(unsigned(t, uint64(10+spent), 5), time.Now())); err != nil {
			break
		}
	}
	s.wantReason("above the limit", err, "LIMIT_EXCEEDED")
	if spent != 4 {
		t.Errorf("number %d was refused by the limit, want 4", spent)
	}

	// Paused and resumed.
	s.ctl("delegation", "pause", b.delegation, "--organization", s.bot.Organization, "--reason", "look", "--key", "treasurer.key")
	_, err = s.turnkey(b, "one", body)
	s.wantReason("paused, a stamp that was made", err, "PAUSED")
	s.ctl("delegation", "resume", b.delegation, "--organization", s.bot.Organization, "--key", "treasurer.key")
	if _, err = s.turnkey(b, "one", body); err != nil {
		t.Errorf("resumed: %v", err)
	}

	// Killed and started again: the stamp, the spending and the key are there.
	if err := s.daemon.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = s.daemon.cmd.Wait()
	s.daemon = startFor(t, s.place)
	if after, err := s.turnkey(b, "one", body); err != nil || after.GetHeader().GetValue() != value {
		t.Errorf("after a kill: %v, %v", after, err)
	}
	_, err = s.turnkey(b, "limit-after", turnkeyBody(unsigned(t, 40, 5), time.Now()))
	s.wantReason("above the limit after a kill", err, "LIMIT_EXCEEDED")

	// Revoked.
	out = s.ctl("vendor-credential", "revoke", id, "--organization", s.bot.Organization, "--key", "treasurer.key")
	if !strings.Contains(out, b.delegation) {
		t.Errorf("revoked:\n%s", out)
	}
	_, err = s.turnkey(b, "one", body)
	s.wantReason("revoked, a stamp that was made", err, "API_KEY_INVALID")
	out = s.ctl("vendor-credential", "show", id, "--organization", s.bot.Organization, "--key", "treasurer.key")
	if !strings.Contains(out, "revoked at") || !strings.Contains(out, "made here") {
		t.Errorf("it is shown as\n%s", out)
	}
	if _, err := s.sigilctl("vendor-credential", "bind", id, "--organization", s.bot.Organization, "--sign-with", stampWallet, "--chain", "eip155", "--address", stampWallet,
		"--name", "again", "--user", s.bot.User, "--recipient", s.age.Recipient().String(), "--rules", "rules.json", "--key", "treasurer.key"); err == nil || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("bound after its end: %v", err)
	}
	if out, err := s.sigilctl("audit", "verify"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// A key that Turnkey knows already is taken in, and is in no file, log or answer.
func TestVendorCredentialIsImported(t *testing.T) {
	s := newStampPlace(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	s.write("turnkey.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	s.write("turnkey.hex", hex.EncodeToString(raw)+"\n")
	args := func(file string) []string {
		return []string{"vendor-credential", "import", file, "--organization", s.bot.Organization, "--name", "old", "--turnkey", turnkeyOrg, "--key", "treasurer.key"}
	}
	out := s.ctl(args("turnkey.pem")...)
	id := strings.Fields(out)[1]
	if _, err := s.sigilctl(args("turnkey.hex")...); err == nil || !strings.Contains(err.Error(), "with this key") {
		t.Errorf("the same key again: %v", err)
	}
	b := s.bind(id, stampWallet, "eip155", stampWallet, stampRules)
	body := turnkeyBody(unsigned(t, 1, 5), time.Now())
	got, err := s.turnkey(b, "one", body)
	if err != nil {
		t.Fatal(err)
	}
	public, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	checkStamp(t, got.GetHeader().GetValue(), body, append([]byte{2 + public[64]&1}, public[1:33]...))
	if out := s.ctl("vendor-credential", "show", id, "--organization", s.bot.Organization, "--key", "treasurer.key"); !strings.Contains(out, "imported: there may be copies") {
		t.Errorf("it is shown as\n%s", out)
	}
	if out := s.ctl("vendor-credential", "list", "--organization", s.bot.Organization, "--key", "treasurer.key"); !strings.Contains(out, id) || strings.Count(out, "\n") != 2 {
		t.Errorf("the list is\n%s", out)
	}
	if err := s.daemon.stop(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"state/vault.db", "state/vault.db-wal"} {
		text, err := os.ReadFile(s.path(name))
		if os.IsNotExist(err) {
			continue
		}
		if err != nil || bytes.Contains(text, raw) || bytes.Contains(text, []byte(hex.EncodeToString(raw))) {
			t.Errorf("%s holds the key (%v)", name, err)
		}
	}
	if log := s.daemon.log.Bytes(); bytes.Contains(log, raw) || bytes.Contains(log, []byte(hex.EncodeToString(raw))) {
		t.Error("the log holds the key")
	}
}

// A credential of Dfns' stamps only what its witness says Dfns gave a challenge for.
func TestDfnsUserActionsAreStamped(t *testing.T) {
	s := newStampPlace(t)
	s.ctl("credential", "create", "--purpose", "witness", "--name", "witness", "--out", "witness")
	if _, err := s.sigilctl("vendor-credential", "create", "--organization", s.bot.Organization, "--name", "dfns", "--dfns", "cr-1", "--key", "treasurer.key"); err == nil || !strings.Contains(err.Error(), "nobody says") {
		t.Errorf("without a witness: %v", err)
	}
	out := s.ctl("vendor-credential", "create", "--organization", s.bot.Organization, "--name", "dfns", "--dfns", "cr-1", "--witness", "witness.json", "--key", "treasurer.key")
	fields := strings.Fields(out)
	id := fields[1]
	public, err := hex.DecodeString(fields[3])
	if err != nil {
		t.Fatal(err)
	}
	b := s.bind(id, dfnsWallet, "eip155", stampWallet, stampRules)
	path := "/wallets/" + dfnsWallet + "/signatures"
	s.write("body.json", fmt.Sprintf(`{"kind":"Transaction","transaction":"0x%x"}`, unsigned(t, 1, 5)))
	s.write("policy.json", `{"name":"all","activityKind":"Wallets:Sign"}`)
	s.write("api.key", string(b.key))
	witness := func(path, body, out string) {
		s.ctl("stamp", "witness", "--credential", id, "--path", path, "--body", body, "--challenge", challenge, "--witness-key", "witness.key", "--out", out)
	}
	witness(path, "body.json", "good.sig")
	witness("/v2/policies", "policy.json", "policy.sig")
	ask := func(path, body, signature string) (string, error) {
		return s.sigilctl("stamp", "dfns", "--wallet", b.wallet, "--path", path, "--body", body, "--challenge", challenge, "--witness-signature", signature, "--api-key", "api.key", "--request-id", "one")
	}
	_, err = ask("/v2/policies", "policy.json", "policy.sig")
	if err == nil || !strings.Contains(err.Error(), "VENDOR_ACTIVITY_DENIED") && !strings.Contains(err.Error(), "only POST") {
		t.Errorf("a policy: %v", err)
	}
	_, err = ask(path, "body.json", "policy.sig")
	if err == nil || !strings.Contains(err.Error(), "witness") {
		t.Errorf("the challenge of another request: %v", err)
	}
	if out, err = ask(path, "body.json", "good.sig"); err != nil {
		t.Fatal(err)
	}
	var factor struct {
		Kind                string
		CredentialAssertion struct{ CredID, ClientData, Signature string }
	}
	if err := json.Unmarshal([]byte(strings.Split(out, "\n")[0]), &factor); err != nil || factor.Kind != "Key" || factor.CredentialAssertion.CredID != "cr-1" {
		t.Fatalf("the answer is %s (%v)", out, err)
	}
	data, err := base64.RawURLEncoding.DecodeString(factor.CredentialAssertion.ClientData)
	if want := `{"type":"key.get","challenge":"` + challenge + `"}`; err != nil || string(data) != want {
		t.Errorf("client data %s, want %s", data, want)
	}
	signature, err := base64.RawURLEncoding.DecodeString(factor.CredentialAssertion.Signature)
	if err != nil {
		t.Fatal(err)
	}
	checkP256(t, public, data, signature)
}

// People approve what is to be signed, not the body that asks for it: with their
// approval a fresh body of the same payload is stamped, and no other.
func TestStampsWaitForApprovals(t *testing.T) {
	s := newStampPlace(t)
	out := s.ctl("vendor-credential", "create", "--organization", s.bot.Organization, "--name", "turnkey", "--turnkey", turnkeyOrg, "--key", "treasurer.key")
	b := s.bind(strings.Fields(out)[1], stampWallet, "eip155", stampWallet, `{"policies":[{"id":"p","name":"two","effect":"EFFECT_ALLOW","condition":"eth.tx.value <= 500","consensus":"approvers.count() >= 2"}]}`)
	now := time.Now()
	_, err := s.turnkey(b, "one", turnkeyBody(unsigned(t, 1, 5), now))
	s.wantReason("alone", err, "APPROVALS_NEEDED")
	activity := client.Details(err)["activity"]
	s.ctl("activity", "approve", activity, "--organization", s.bot.Organization, "--key", "owner.key", "--yes")
	_, err = s.turnkey(b, "one", turnkeyBody(unsigned(t, 1, 6), now))
	s.wantReason("another payload", err, "REQUEST_ID_REUSED")
	fresh := turnkeyBody(unsigned(t, 1, 5), now.Add(time.Second))
	first, err := s.turnkey(b, "one", fresh)
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.turnkey(b, "one", turnkeyBody(unsigned(t, 1, 5), now))
	s.wantReason("the body before, when another was stamped", err, "REQUEST_ID_REUSED")
	if again, err := s.turnkey(b, "one", fresh); err != nil || again.GetHeader().GetValue() != first.GetHeader().GetValue() {
		t.Errorf("asked again: %v, %v", again, err)
	}
}
