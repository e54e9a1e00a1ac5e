package journal

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/vault"
)

// softDevice seals and signs in software, for this package's tests.
type softDevice struct {
	mu    sync.Mutex
	gcm   cipher.AEAD
	key   *ecdsa.PrivateKey
	fault error // answered instead of signing
	bad   bool  // signs with a wrong key
	signs int
}

const deviceID = "soft:1"

func newDevice(t testing.TB) *softDevice {
	t.Helper()
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	g, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &softDevice{gcm: g, key: k}
}

func (d *softDevice) Seal(_ context.Context, _ seal.KeyRef, plaintext, aad []byte) ([]byte, error) {
	nonce := make([]byte, 12)
	rand.Read(nonce)
	return d.gcm.Seal(nonce, nonce, plaintext, aad), nil
}

func (d *softDevice) Unseal(_ context.Context, _ seal.KeyRef, blob, aad []byte, use func([]byte) error) error {
	pt, err := d.gcm.Open(nil, blob[:12], blob[12:], aad)
	if err != nil {
		return seal.ErrTampered
	}
	defer clear(pt)
	return use(pt)
}

func (d *softDevice) PublicP256(context.Context, seal.KeyRef) (*ecdsa.PublicKey, error) {
	return &d.key.PublicKey, nil
}

func (d *softDevice) SignP256(_ context.Context, _ seal.KeyRef, digest [32]byte) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.signs++
	if d.fault != nil {
		return nil, d.fault
	}
	if d.bad {
		digest[0] ^= 1
	}
	r, s, err := ecdsa.Sign(rand.Reader, d.key, digest[:])
	if err != nil {
		return nil, err
	}
	sig := make([]byte, 64)
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	return sig, nil
}

func (d *softDevice) setFault(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault = err
}

// clock is a settable time.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// fixture is one journal on disk that can be opened again.
type fixture struct {
	t      testing.TB
	dir    string
	device *softDevice
	clock  *clock
	pin    vault.Pin
	v      *vault.Vault
	j      *Journal
	// archive is the folder of segments; "": none.
	archive string
	keep    Keep
}

var testStart = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newFixture(t testing.TB) *fixture {
	t.Helper()
	return newFixtureIn(t, filepath.Join(t.TempDir(), "state"))
}

func newFixtureIn(t testing.TB, dir string) *fixture {
	t.Helper()
	f := &fixture{t: t, dir: dir, device: newDevice(t), clock: &clock{t: testStart}}
	holder := vault.KeyHolder{Sealer: f.device, ID: deviceID, Ref: "01"}
	var err error
	if f.v, f.pin, err = vault.Create(context.Background(), vault.Config{Dir: f.dir, Now: f.clock.now}, holder); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.v.Close() })
	g := Genesis{ApplianceID: "appliance-1", Operators: []string{"operator key A", "operator key B"}, Facts: map[string]string{"quorum": "2"}}
	if f.j, err = Create(context.Background(), f.v, f.config(), g, nil); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fixture) config() Config {
	return Config{Signer: f.device, CheckpointKey: "02", Now: f.clock.now, Archive: Archive{Dir: f.archive}, Keep: f.keep}
}

func (f *fixture) path() string { return filepath.Join(f.dir, vault.FileName) }

// openVault opens the store again, unsealed, without a journal.
func (f *fixture) openVault() {
	f.t.Helper()
	if err := f.v.Close(); err != nil {
		f.t.Fatal(err)
	}
	v, err := vault.Open(context.Background(), vault.Config{Dir: f.dir, Now: f.clock.now}, f.pin)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := v.Unseal(context.Background(), f.sealers()); err != nil {
		f.t.Fatal(err)
	}
	f.v = v
}

func (f *fixture) sealers() map[string]seal.Sealer {
	return map[string]seal.Sealer{deviceID: f.device}
}

// reopen opens vault and journal again, as after a restart.
func (f *fixture) reopen() {
	f.t.Helper()
	f.openVault()
	j, err := Open(context.Background(), f.v, f.config())
	if err != nil {
		f.t.Fatal(err)
	}
	f.j = j
}

// append appends one entry in an update of its own.
func (f *fixture) append(e Entry) (uint64, error) {
	var seq uint64
	err := f.v.Update(context.Background(), func(tx *vault.Tx) (err error) {
		seq, err = f.j.Append(tx, e)
		return err
	})
	return seq, err
}

func (f *fixture) must(e Entry) uint64 {
	f.t.Helper()
	seq, err := f.append(e)
	if err != nil {
		f.t.Fatalf("appending %s: %v", e.Kind, err)
	}
	return seq
}

func hashOf(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}

const eth = "eip155:1/slip44:60"

// approval is a plausible approval of a transfer and its fee.
func approval(id string, amount int) Entry {
	return Entry{
		Kind: KindApproved, Method: "/sigil.v1.Signing/SignTransaction", Organization: "org", RequestID: id, RequestHash: hashOf("message " + id),
		Caller: &Caller{UID: 1000, GID: 1000, PID: 4242}, Credentials: []string{"key-1"}, User: "user", Wallet: "wallet", Delegation: "delegation",
		ShareSet: "set-1", Digest: hashOf("digest " + id), PolicySet: hashOf("policies"), Outcome: "allow", Rule: "payroll", Trace: []string{"payroll: allow"},
		Charges: []Charge{
			{Chain: "eip155:1", Asset: eth, Amount: strconv.Itoa(amount), What: "transfer", To: "0x00"},
			{Chain: "eip155:1", Asset: eth, Amount: "21000", What: "fee"},
		},
		ReplayKeys: []string{"evm-nonce:1:0x00:" + id},
	}
}

func signedEntry(approved uint64, answer string) Entry {
	return Entry{Kind: KindSigned, ApprovedSeq: approved, Answer: []byte(answer), SignatureHash: hashOf(answer)}
}

func failedEntry(approved uint64, refund bool) Entry {
	e := Entry{Kind: KindFailed, ApprovedSeq: approved, Reason: "ceremony failed"}
	if refund {
		e.Refund()
	}
	return e
}

func (f *fixture) wantState(id string, want State) RequestState {
	f.t.Helper()
	s, ok, _ := f.j.Request("org", id)
	if !ok || s.State != want {
		f.t.Errorf("request %s is %q (known %v), want %q", id, s.State, ok, want)
	}
	return s
}

func (f *fixture) wantSpent(since time.Time, what string, sum uint64, count int) Spent {
	f.t.Helper()
	s := f.j.Spent(ByDelegation("delegation"), eth, what, since)
	if !s.Sum.IsUint64() || s.Sum.Uint64() != sum || s.Count != count {
		f.t.Errorf("spent for %q since %v = %s in %d requests, want %d in %d", what, since, s.Sum.Dec(), s.Count, sum, count)
	}
	return s
}
