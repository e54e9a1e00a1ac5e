package delegation

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/mpctest"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/signing"
	"github.com/sigild/sigild/vault"
)

const cluster = "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"

// holder is a private key with what registers its public half.
type holder struct {
	NewCredential
	key *credential.PrivateKey
}

// newHolder makes a key with its proof of possession; it panics where only
// crypto/rand could be to blame.
func newHolder(p credential.Purpose, name string) holder {
	key, err := credential.GenerateKey(credential.Ed25519)
	if err != nil {
		panic(err)
	}
	proof, err := credential.NewProof(key, p, name)
	if err != nil {
		panic(err)
	}
	return holder{NewCredential{Name: name, PublicKey: key.Public(), Proof: proof}, key}
}

// newMember makes an end user and the message that registers it.
func newMember(org, name string) (member, NewUser) {
	m := member{holder: newHolder(credential.ForUser, name)}
	var err error
	if m.age, err = age.GenerateX25519Identity(); err != nil {
		panic(err)
	}
	n := NewUser{
		RequestID: name, Organization: org, Name: name, Kind: EndUser,
		Credentials: []NewCredential{m.NewCredential}, ShareRecipient: m.age.Recipient().String(),
	}
	if n.RecipientSignature, err = credential.SignRecipient(m.key, n.ShareRecipient); err != nil {
		panic(err)
	}
	return m, n
}

var caller = journal.Caller{UID: 1001, GID: 1001, PID: 4711}

// stamped is what the server makes of a call: the peer, a method that fits the
// message's type, the hash of the message, and the credentials behind its stamps.
func stamped(org string, message any, by ...holder) Actor {
	a := Actor{Caller: caller, Method: "/sigil.v1/" + reflect.TypeOf(message).Name(), Organization: org}
	a.RequestHash = sha256.Sum256(fmt.Appendf(nil, "%#v", message))
	for _, h := range by {
		a.Credentials = append(a.Credentials, h.key.Public())
	}
	return a
}

// look is an actor who only looks.
func look(org string, by ...holder) Actor { return stamped(org, "look", by...) }

// revocation is the message of RevokeDelegation.
type revocation struct{ RequestID, Delegation string }

// clock is the time of a house; who looks at it runs hook first.
type handClock struct {
	mu   sync.Mutex
	t    time.Time
	hook func()
}

func (c *handClock) now() time.Time {
	c.mu.Lock()
	t, hook := c.t, c.hook
	c.mu.Unlock()
	if hook != nil {
		hook()
	}
	return t
}

// look sets what whoever looks at the clock runs; nil for nothing.
func (c *handClock) look(hook func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hook = hook
}

func (c *handClock) set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = t
}

func (c *handClock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// house is one store with its rooms open.
type house struct {
	*Service
	t     testing.TB
	dir   string
	clock *handClock
	log   *logBuffer
	// secrets must not show up in the log or the journal.
	secrets [][]byte
	cfg     Config
}

// newHouse opens a copy of the shared store; change sees the config first.
func newHouse(t testing.TB, change ...func(*house)) *house {
	t.Helper()
	h := &house{t: t, dir: filepath.Join(t.TempDir(), "state"), clock: &handClock{t: began.Add(time.Minute)}, log: &logBuffer{}}
	h.cfg.PreParameters = mpctest.PreParams(t)
	copyStore(t, site.dir, h.dir)
	h.openVault()
	for _, c := range change {
		c(h)
	}
	h.open()
	t.Cleanup(func() { h.Service.Close(); h.keepsSecrets() })
	return h
}

func copyStore(t testing.TB, from, to string) {
	t.Helper()
	if err := os.Mkdir(to, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{vault.FileName, vault.FileName + "-wal"} {
		b, err := os.ReadFile(filepath.Join(from, name))
		if os.IsNotExist(err) && name != vault.FileName {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func (h *house) openVault() {
	h.t.Helper()
	ctx := context.Background()
	v, err := vault.Open(ctx, vault.Config{Dir: h.dir, Now: h.clock.now, Log: h.log.logger()}, site.pin)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if err := v.Close(); err != nil {
			h.t.Error(err)
		}
	})
	if err := v.Unseal(ctx, sealers()); err != nil {
		h.t.Fatal(err)
	}
	h.cfg.Vault, h.cfg.Now, h.cfg.Log = v, h.clock.now, h.log.logger()
}

// open opens journal and delegation on the open vault.
func (h *house) open() {
	h.t.Helper()
	cfg := site.config
	cfg.Now, cfg.Log = h.clock.now, h.log.logger()
	var err error
	if h.cfg.Journal, err = journal.Open(context.Background(), h.cfg.Vault, cfg); err != nil {
		h.t.Fatal(err)
	}
	if h.Service, err = Open(context.Background(), h.cfg); err != nil {
		h.t.Fatal(err)
	}
}

// restart closes everything and opens it again.
func (h *house) restart() {
	h.t.Helper()
	h.Service.Close()
	if err := h.cfg.Vault.Close(); err != nil {
		h.t.Fatal(err)
	}
	h.openVault()
	h.open()
}

// crashed opens a copy of the store as it is on disk at this moment, as after kill -9.
func (h *house) crashed() *house {
	h.t.Helper()
	c := &house{t: h.t, dir: filepath.Join(h.t.TempDir(), "copy"), clock: &handClock{t: h.clock.now()}, log: &logBuffer{}}
	c.cfg.PreParameters = h.cfg.PreParameters
	copyStore(h.t, h.dir, c.dir)
	c.openVault()
	c.open()
	h.t.Cleanup(func() { c.Service.Close() })
	return c
}

// Current and Enter are those of a delegation's standing.
func (h *house) Current(delegation string) (*signing.Standing, error) {
	return h.Service.Current(&signing.Standing{Delegation: delegation})
}

func (h *house) Enter(delegation string) (*signing.Standing, func(), error) {
	return h.Service.Enter(&signing.Standing{Delegation: delegation})
}

// KnownCredential is the service's without the relying party.
func (h *house) KnownCredential(org string, pk credential.PublicKey) bool {
	_, known := h.Service.KnownCredential(org, pk)
	return known
}

// put writes records as ceremonies would have left them.
func (h *house) put(f func(tx *vault.Tx) error) {
	h.t.Helper()
	if err := h.cfg.Vault.Update(context.Background(), f); err != nil {
		h.t.Fatal(err)
	}
}

// solWallet is the id of the wallet that withWallets gives dana.
const solWallet = "wal_sol"

// withWallet gives dana an active Solana wallet with a root set of mpctest.
func withWallet(h *house) {
	h.t.Helper()
	h.wallet(solWallet, cluster, mpctest.Ed25519RootSet(h.t))
}

// ethWallet is the id of the wallet that withEther gives dana.
const ethWallet = "wal_eth"

func withEther(h *house) {
	h.t.Helper()
	h.wallet(ethWallet, "eip155", mpctest.ECDSARootSet(h.t))
}

func (h *house) wallet(id, chain string, set mpctest.Set) {
	h.t.Helper()
	address, err := addressOf(chain, set.PublicKey)
	if err != nil {
		h.t.Fatal(err)
	}
	here := []mpc.Party{mpc.Recovery, mpc.Server}
	k := &key{V: recordVersion, ID: "key_" + id, Organization: site.acme, Owner: site.dana.id, Scheme: set.Scheme, CreatedAt: began,
		Origin: "in_process", Status: statusActive, Root: set.ShareSet, Here: here}
	w := &wallet{V: recordVersion, ID: id, Organization: site.acme, Key: k.ID, Owner: site.dana.id, Chain: chain, Name: "main",
		Address: address, Status: statusActive, CreatedAt: began}
	h.put(func(tx *vault.Tx) error {
		for i, b := range set.Shares(h.t, here...) {
			h.secrets = append(h.secrets, middle(b))
			if err := tx.Put(vault.TypeShare, ShareID(set.ID, here[i]), b); err != nil {
				return err
			}
		}
		if err := store(tx, vault.TypeKey, k.ID, k); err != nil {
			return err
		}
		return store(tx, vault.TypeWallet, id, w)
	})
}

// middle is a part of a share that is secret or random.
func middle(share []byte) []byte { return bytes.Clone(share[len(share)/2:][:24]) }

// allow is a policy that compiles.
var allow = policy.Policy{Name: "payouts", Effect: policy.Allow, Lang: policy.LangSigild, Condition: "solana.tx.transfers.all(t, t.amount <= 500)"}

// newDelegation is a good message for a wallet of dana's.
func newDelegation(id, wallet string) NewDelegation {
	return NewDelegation{
		RequestID: id, Organization: site.acme, Wallet: wallet, DelegatedUser: site.bot,
		Recipient: site.recipient.Recipient().String(), Policies: []policy.Policy{allow},
	}
}

// delegate makes an active delegation of dana's wallet and returns it with its API key.
func (h *house) delegate(id, wallet string) (string, []byte) {
	h.t.Helper()
	n := newDelegation(id, wallet)
	made, err := h.CreateDelegation(context.Background(), stamped(site.acme, n, site.dana.holder), n)
	if err != nil {
		h.t.Fatal(err)
	}
	h.wantCeremony(made.CeremonyID, statusDone)
	return made.DelegationID, h.apiKey(made.DelegationID)
}

// apiKey opens the API key of an active delegation.
func (h *house) apiKey(delegation string) []byte {
	h.t.Helper()
	d, err := h.Delegation(look(site.acme, site.dana.holder), site.acme, delegation)
	if err != nil || d.Status != statusActive {
		h.t.Fatalf("delegation %+v, %v, want an active one", d, err)
	}
	key := openAge(h.t, d.EncryptedAPIKey, site.recipient)
	h.secrets = append(h.secrets, key[31:])
	return key
}

func openAge(t testing.TB, ciphertext []byte, id age.Identity) []byte {
	t.Helper()
	r, err := age.Decrypt(bytes.NewReader(ciphertext), id)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// wantCeremony awaits the end of a ceremony of acme.
func (h *house) wantCeremony(id, status string) Ceremony {
	h.t.Helper()
	var c Ceremony
	until(h.t, "the ceremony has ended", func() bool {
		var err error
		if c, err = h.Ceremony(look(site.acme, site.root[0]), site.acme, id); err != nil {
			h.t.Fatal(err)
		}
		return c.Status != statusRunning
	})
	if c.Status != status {
		h.t.Fatalf("ceremony is %s (%s), want %s; log:\n%s", c.Status, c.Error, status, h.log)
	}
	return c
}

// until spins until done; what it waits for is on its way.
func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !done(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("waited two minutes until %s", what)
		}
	}
}

// wantRefusal insists on a reason and returns the refusal.
func wantRefusal(t testing.TB, what string, err error, want refusal.Reason) *refusal.Error {
	t.Helper()
	no, ok := err.(*refusal.Error) // not wrapped: this is what the caller is told
	if !ok || no.Reason != want {
		t.Fatalf("%s: error is %v, want a refusal %s", what, err, want)
	}
	return no
}

func (h *house) entries() []journal.Entry {
	h.t.Helper()
	all, err := h.cfg.Journal.Entries(context.Background(), 1, 1<<20)
	if err != nil {
		h.t.Fatal(err)
	}
	return all
}

// last is the newest entry.
func (h *house) last() journal.Entry {
	h.t.Helper()
	all := h.entries()
	return all[len(all)-1]
}

// unchanged runs f and insists that it wrote nothing.
func (h *house) unchanged(what string, f func()) {
	h.t.Helper()
	before := h.cfg.Vault.Info()
	f()
	if after := h.cfg.Vault.Info(); after != before {
		h.t.Errorf("%s: the vault went from %+v to %+v", what, before, after)
	}
}

// keepsSecrets looks for secrets in all that was logged and journaled.
func (h *house) keepsSecrets() {
	text := h.log.String()
	if !h.cfg.Vault.Sealed() {
		b, err := json.Marshal(h.entries())
		if err != nil {
			h.t.Error(err)
		}
		text += string(b)
	}
	for _, s := range h.secrets {
		for _, form := range []string{string(s), hex.EncodeToString(s), base64.StdEncoding.EncodeToString(s), fmt.Sprint(s)} {
			if strings.Contains(text, form) {
				h.t.Error("a secret was logged or journaled")
			}
		}
	}
}

// logBuffer is what the rooms logged.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func sealers() map[string]seal.Sealer {
	return map[string]seal.Sealer{site.device.ID(): site.device}
}
