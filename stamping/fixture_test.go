package stamping

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/rlp"

	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/hsm"
	"github.com/sigild/sigild/internal/testhsm"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/signing"
	"github.com/sigild/sigild/vault"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "hsm-worker" {
		os.Exit(hsm.WorkerMain())
	}
	os.Exit(m.Run())
}

const (
	turnkeyOrg = "f9f0a6c4-2b1c-4d0a-9d5e-0c3a1b2c3d4e"
	address    = "0x9cad63e4c09a9bd195568fc662835046c3605873"
	challenge  = "MWM0MmY5YTQ0MDRiNzdhNTFhNzY5ODQwNWI5ZTQ4Y2RhODZiNDk3ZTYzOTE5OGYyMDcxZjBjYzk4MmQ5YzY1MA"
	method     = "/sigil.v1.StampingService/StampRequest"
)

var (
	began = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	payee = common.HexToAddress("0x00000000000000000000000000000000000000aa")
	small = policy.Policy{Name: "small", Effect: policy.Allow, Lang: policy.LangSigild,
		Condition: "eth.tx.to == '0x00000000000000000000000000000000000000aa' && eth.tx.value <= 500"}
)

// house is a token, a store with two organizations, and all rooms open on it.
type house struct {
	*Service
	t          testing.TB
	dir        string
	device     *hsm.Provider
	journalCfg journal.Config
	pin        vault.Pin
	log        *bytes.Buffer
	vault      *vault.Vault
	journal    *journal.Journal
	delegation *delegation.Service
	signing    *signing.Service
	now        time.Time
	// before, when set, runs when a key is about to sign.
	before func()
	// unconfirmed is what the clock says of itself.
	unconfirmed error

	acme, globex         string
	acmeRoot, globexRoot *credential.PrivateKey
	bot                  string
	age                  *age.X25519Identity
}

func newHouse(t testing.TB) *house {
	t.Helper()
	ctx := t.Context()
	tok := testhsm.New(t)
	p, err := hsm.Open(ctx, hsm.Config{
		Module: tok.Module, TokenLabel: tok.Label, TokenSerial: tok.Serial, PINFile: tok.PINFile,
		LatchFile: filepath.Join(tok.Dir, "latch"), EnvAllow: tok.Env, CallTimeout: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	keys, err := p.Provision(ctx)
	if err != nil {
		t.Fatal(err)
	}
	h := &house{t: t, dir: filepath.Join(t.TempDir(), "state"), device: p, log: new(bytes.Buffer), now: began}
	h.journalCfg = journal.Config{Signer: p, CheckpointKey: keys.Checkpoint, Now: h.clock}
	v, pin, err := vault.Create(ctx, vault.Config{Dir: h.dir, Now: h.clock}, vault.KeyHolder{Sealer: p, ID: p.ID(), Ref: keys.KEK})
	if err != nil {
		t.Fatal(err)
	}
	h.pin = pin
	operator, named := newMember(t, credential.ForOperator, "otto")
	_, j, err := delegation.Genesis(ctx, v, h.journalCfg, []delegation.NewCredential{named}, 1, began)
	if err != nil {
		t.Fatal(err)
	}
	h.open(v, j)
	organize := func(name string) (id string, key *credential.PrivateKey) {
		key, root := newMember(t, credential.ForOrganizationRoot, name)
		n := delegation.NewOrganization{RequestID: name, Name: name, Quorum: 1, Root: []delegation.NewCredential{root}}
		made, err := h.delegation.CreateOrganization(ctx, h.actor("", operator, n), n)
		if err != nil {
			t.Fatal(err)
		}
		return made.OrganizationID, key
	}
	h.acme, h.acmeRoot = organize("acme")
	h.globex, h.globexRoot = organize("globex")
	n := delegation.NewUser{RequestID: "bot", Organization: h.acme, Name: "bot", Kind: delegation.DelegatedUser}
	made, err := h.delegation.CreateUser(ctx, h.actor(h.acme, h.acmeRoot, n), n)
	if err != nil {
		t.Fatal(err)
	}
	h.bot = made.UserID
	if h.age, err = age.GenerateX25519Identity(); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *house) clock() time.Time { return h.now }

func newMember(t testing.TB, purpose credential.Purpose, name string) (*credential.PrivateKey, delegation.NewCredential) {
	t.Helper()
	key, err := credential.GenerateKey(credential.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	proof, err := credential.NewProof(key, purpose, name)
	if err != nil {
		t.Fatal(err)
	}
	return key, delegation.NewCredential{Name: name, PublicKey: key.Public(), Proof: proof}
}

// actor is what the server makes of a stamped call.
func (h *house) actor(org string, by *credential.PrivateKey, message any) delegation.Actor {
	a := delegation.Actor{Caller: journal.Caller{UID: 1001}, Method: "/sigil.v1/" + reflect.TypeOf(message).Name(), Organization: org, Credentials: []credential.PublicKey{by.Public()}}
	a.RequestHash = sha256.Sum256(fmt.Appendf(nil, "%T %+v", message, message))
	return a
}

// open opens the rooms on an open vault and journal.
func (h *house) open(v *vault.Vault, j *journal.Journal) {
	h.t.Helper()
	h.vault, h.journal = v, j
	logger := slog.New(slog.NewTextHandler(lockedWriter{w: h.log, mu: new(sync.Mutex)}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	if h.delegation, err = delegation.Open(context.Background(), delegation.Config{Vault: v, Journal: j, Now: h.clock, Log: logger}); err != nil {
		h.t.Fatal(err)
	}
	if h.Service, err = Open(context.Background(), Config{Vault: v, Journal: j, Delegations: h.delegation, Now: h.clock, Log: logger}); err != nil {
		h.t.Fatal(err)
	}
	h.delegation.VendorCredentials(h.Service)
	h.signing = signing.New(signing.Config{
		Authority: h.delegation, Vault: v, Journal: j, Stamper: watched{h}, Failed: h.delegation.CountFailure, Now: h.clock,
		TimeUnconfirmed: func() error { return h.unconfirmed }, Log: logger,
	})
	h.t.Cleanup(func() {
		h.signing.Close()
		h.delegation.Close()
		_ = j.Close(context.Background())
		_ = v.Close()
	})
}

// watched lets a test stand between the approval and the signature.
type watched struct{ h *house }

func (w watched) ReadBody(c signing.VendorCredential, i signing.WalletInfo, b signing.VendorBody) (signing.AskedOfVendor, error) {
	return w.h.Service.ReadBody(c, i, b)
}

func (w watched) SignBody(ctx context.Context, c signing.VendorCredential, b signing.VendorBody, before func() error) ([]byte, error) {
	return w.h.Service.SignBody(ctx, c, b, func() error {
		if w.h.before != nil {
			w.h.before()
		}
		return before()
	})
}

func (w watched) ShowStamp(c signing.VendorCredential, b signing.VendorBody, signature []byte) (signing.VendorStamp, error) {
	return w.h.Service.ShowStamp(c, b, signature)
}

// killed is the store as it is on disk at this moment, as after kill -9, open again.
func (h *house) killed() *house {
	h.t.Helper()
	c := *h
	c.dir, c.before = filepath.Join(h.t.TempDir(), "copy"), nil
	if err := os.Mkdir(c.dir, 0o700); err != nil {
		h.t.Fatal(err)
	}
	for _, name := range []string{vault.FileName, vault.FileName + "-wal"} {
		b, err := os.ReadFile(filepath.Join(h.dir, name))
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			h.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(c.dir, name), b, 0o600); err != nil {
			h.t.Fatal(err)
		}
	}
	v, err := vault.Open(context.Background(), vault.Config{Dir: c.dir, Now: c.clock}, h.pin)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := v.Unseal(context.Background(), map[string]seal.Sealer{h.device.ID(): h.device}); err != nil {
		h.t.Fatal(err)
	}
	cfg := h.journalCfg
	cfg.Now = c.clock
	j, err := journal.Open(context.Background(), v, cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	c.open(v, j)
	return &c
}

// create makes a credential of acme.
func (h *house) create(n NewCredential) CredentialCreated {
	h.t.Helper()
	n.Organization = h.acme
	out, err := h.Create(h.t.Context(), h.delegation.Acting(h.actor(h.acme, h.acmeRoot, n.Name)), n)
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

func (h *house) turnkey() CredentialCreated {
	return h.create(NewCredential{RequestID: "create", Name: "turnkey", Vendor: Turnkey, Account: turnkeyOrg})
}

// binding is the message that binds a credential to the bot.
func (h *house) binding(id, credential, signWith string, limits []policy.Limit, policies ...policy.Policy) delegation.NewCredentialBinding {
	n := delegation.NewCredentialBinding{Credential: credential, SignWith: signWith, Chain: "eip155", Address: address, Name: "theirs"}
	n.RequestID, n.Organization, n.DelegatedUser, n.Recipient = id, h.acme, h.bot, h.age.Recipient().String()
	n.Policies, n.Limits = policies, limits
	return n
}

// wallet is a bound wallet with its API key.
type wallet struct {
	delegation, id string
	key            []byte
}

func (h *house) bind(n delegation.NewCredentialBinding) wallet {
	h.t.Helper()
	made, err := h.delegation.BindVendorCredential(h.t.Context(), h.actor(h.acme, h.acmeRoot, n), n)
	if err != nil {
		h.t.Fatal(err)
	}
	shown, err := h.delegation.Delegation(h.actor(h.acme, h.acmeRoot, "look"), h.acme, made.DelegationID)
	if err != nil {
		h.t.Fatal(err)
	}
	r, err := age.Decrypt(bytes.NewReader(shown.EncryptedAPIKey), h.age)
	if err != nil {
		h.t.Fatal(err)
	}
	w := wallet{delegation: made.DelegationID, id: made.WalletID}
	if w.key, err = io.ReadAll(r); err != nil {
		h.t.Fatal(err)
	}
	return w
}

// pay is an unsigned EVM transaction.
func pay(t testing.TB, nonce uint64, wei int64) []byte {
	t.Helper()
	b, err := rlp.EncodeToBytes([]any{uint64(1), nonce, big.NewInt(1), big.NewInt(2), uint64(21_000), payee, big.NewInt(wei), []byte{}, types.AccessList{}})
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte{types.DynamicFeeTxType}, b...)
}

// body is Turnkey's for a transaction, at the house's time.
func (h *house) body(unsigned []byte) []byte {
	return fmt.Appendf(nil, `{"type":"ACTIVITY_TYPE_SIGN_TRANSACTION_V2","timestampMs":"%d","organizationId":%q,"parameters":{"signWith":%q,"unsignedTransaction":"%x","type":"TRANSACTION_TYPE_ETHEREUM"}}`,
		h.now.UnixMilli(), turnkeyOrg, address, unsigned)
}

func (h *house) ask(w wallet, id string, b signing.VendorBody) (*signing.Result, error) {
	return h.signing.Sign(context.Background(), signing.Request{ID: id, WalletID: w.id, APIKey: w.key, Method: method, Caller: journal.Caller{UID: 1002}, Vendor: &b})
}

func (h *house) stamp(w wallet, id string, body []byte) (*signing.Result, error) {
	return h.ask(w, id, signing.VendorBody{Vendor: string(Turnkey), Body: body})
}

func (h *house) wantReason(what string, err error, want refusal.Reason) {
	h.t.Helper()
	if !refusal.Is(err, want) {
		h.t.Errorf("%s: %v, want %s", what, err, want)
	}
}

// entries are the journal's.
func (h *house) entries() (out []journal.Entry) {
	h.t.Helper()
	for from := uint64(1); ; {
		page, err := h.journal.Entries(context.Background(), from, 256)
		if err != nil {
			h.t.Fatal(err)
		}
		if len(page) == 0 {
			return out
		}
		out, from = append(out, page...), page[len(page)-1].Seq+1
	}
}

// keeps fails when a private key is in the log or in the journal.
func (h *house) keeps(raw []byte) {
	h.t.Helper()
	text, err := json.Marshal(h.entries())
	if err != nil {
		h.t.Fatal(err)
	}
	text = append(text, h.log.Bytes()...)
	if bytes.Contains(text, raw) || bytes.Contains(text, []byte(hex.EncodeToString(raw))) {
		h.t.Error("a private key was logged or journaled")
	}
}

type lockedWriter struct {
	w  io.Writer
	mu *sync.Mutex
}

func (l lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}
