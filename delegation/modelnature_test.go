package delegation

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/sigild/sigild/chains/solana"
	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/delegation/model"
	"github.com/sigild/sigild/delivery"
	"github.com/sigild/sigild/internal/testvendor"
	"github.com/sigild/sigild/mpc/mpctest"
)

// nature is what all worlds of the model begin with: a store with the organization of
// all tests, whose owner has wallets of the engine's double, two delegated users that
// have credentials of their own, a registered webhook, and the vendor beyond it.
type nature struct {
	t      testing.TB
	dir    string // of the store that worlds copy
	people map[model.Person]holder
	bots   [model.Users]string
	own    []string
	public [model.OwnWallets]ed25519.PublicKey
	// webhook and decrypt are what the vendor knows of us; stray is another's key.
	webhook string
	encrypt *rsa.PublicKey
	stray   *rsa.PrivateKey
	vendor  [model.VendorWallets + 1]ed25519.PublicKey

	// mu guards sent: the bodies of events, by what they say.
	mu   sync.Mutex
	sent map[string][]byte
}

const (
	modelEnvironment = "53728749-1f19-4cab-becf-b88f952c3a3c"
	modelSecret      = "whsec_0123456789abcdef"
)

func newNature(t testing.TB) *nature {
	t.Helper()
	h := newHouse(t)
	n := &nature{t: t, dir: h.dir, sent: map[string][]byte{}, people: map[model.Person]holder{
		model.Rhea: site.root[0], model.Rolf: site.root[1], model.Ruth: site.root[2], model.Dana: site.dana.holder, model.Erin: site.erin.holder,
		model.Gene: site.globexRoot[0], model.Otto: site.operators[0], model.Olga: site.operators[1],
		model.DanaSecond: newHolder(credential.ForUser, "second"), model.Stranger: newHolder(credential.ForUser, "stranger"),
	}}
	ctx := context.Background()
	for i, p := range []model.Person{model.Bot0, model.Bot1} {
		n.people[p] = newHolder(credential.ForDelegatedUser, "bot")
		u := NewUser{RequestID: fmt.Sprint("model-bot-", i), Organization: site.acme, Name: string(p), Kind: DelegatedUser, Credentials: []NewCredential{n.people[p].NewCredential}}
		made, err := h.CreateUser(ctx, stamped(site.acme, u, site.root...), u)
		if err != nil {
			t.Fatal(err)
		}
		n.bots[i] = made.UserID
	}
	second := AddedCredential{RequestID: "model-second", Organization: site.acme, User: site.dana.id, Credential: n.people[model.DanaSecond].NewCredential}
	if _, err := h.AddCredential(ctx, stamped(site.acme, second, site.dana.holder), second); err != nil {
		t.Fatal(err)
	}
	for i := range n.public {
		n.public[i] = newDoubleKey()
		id := fmt.Sprint("wal_own_", i)
		h.wallet(id, cluster, mpctest.Ed25519RootSet(t).OfKey(t, doubleEngine, "root-"+id, n.public[i]))
		n.own = append(n.own, id)
	}
	h.secrets = nil // the double's shares are no secrets
	for i := range n.vendor {
		n.vendor[i] = newDoubleKey()
	}
	s, err := delivery.Open(ctx, delivery.Config{Vault: h.cfg.Vault, Journal: h.cfg.Journal, Device: site.device, DeviceID: site.device.ID()})
	if err != nil {
		t.Fatal(err)
	}
	registered, err := s.RegisterWebhook(ctx, h.Acting(look(site.acme, site.root...)), delivery.NewWebhook{
		RequestID: "model-webhook", Organization: site.acme, Environment: modelEnvironment, Secrets: [][]byte{[]byte(modelSecret)}, Bits: 2048,
	})
	if err != nil {
		t.Fatal(err)
	}
	n.webhook = registered.WebhookID
	block, _ := pem.Decode([]byte(registered.Keys[0].PublicKeyPEM))
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	n.encrypt = public.(*rsa.PublicKey)
	if n.stray, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	return n
}

// world opens a fresh one in dir.
func (n *nature) world(dir string) (*world, error) {
	w := &world{nature: n, dir: dir, store: filepath.Join(dir, "store"), clock: &handClock{t: began.Add(time.Minute)}, wallets: append([]string{}, n.own...), signatures: map[int][]byte{}}
	if err := copyFiles(n.dir, w.store); err != nil {
		return nil, err
	}
	return w, w.open()
}

// live plays one life in a world of its own, which is gone afterwards.
func (n *nature) live(life []model.Move, t *model.Tally) (err error) {
	dir, err := os.MkdirTemp(scratch(), "model-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	w, err := n.world(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	return model.Play(w, w.clock.now(), life, t)
}

// scratch is where stores of worlds lie: in memory where there is some. What a kill
// leaves is what the process gave to the kernel; power cuts are vault's tests.
func scratch() string {
	if i, err := os.Stat("/dev/shm"); err == nil && i.IsDir() {
		return "/dev/shm"
	}
	return ""
}

func (n *nature) vendorAddress(i int) string { return solana.Address([32]byte(n.vendor[i])) }

func (n *nature) opened(ciphertext []byte) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(ciphertext), site.recipient)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// received is a copy of an event as it comes over the network.
func (n *nature) received(a model.Act, now time.Time) delivery.Received {
	e, environment, at, key := a.Event, modelEnvironment, a.Event.At, n.encrypt
	switch {
	case a.Damage == model.Elsewhere:
		environment = "another"
	case a.Damage == model.OtherKey:
		key = &n.stray.PublicKey
	case a.Damage == model.FarAhead && !e.Revoked:
		at = now.Add(25 * time.Hour)
	}
	body := n.body(e, environment, at, key)
	if a.Damage == model.Twice {
		body = append(body[:len(body)-1], `,"eventId":"again"}`...)
	}
	if a.Damage == model.Oversized {
		body = append(body, bytes.Repeat([]byte(" "), delivery.MaxBody)...)
	}
	secret := modelSecret
	if a.Damage == model.BadMAC {
		secret += "x"
	}
	mac := testvendor.MAC(secret, body)
	if a.Damage == model.ChangedByte {
		body[len(body)/2] ^= 1
	}
	return delivery.Received{Webhook: n.webhook, Body: body, Signature: mac}
}

// body is the event's bytes, each time the same.
func (n *nature) body(e model.Event, environment string, at time.Time, key *rsa.PublicKey) []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	id := fmt.Sprint(e, environment, at, key == n.encrypt)
	if b := n.sent[id]; b != nil {
		return bytes.Clone(b)
	}
	data := map[string]any{"walletId": fmt.Sprint("vendor-", e.Vendor), "chain": "SVM", "userId": e.Name()}
	if e.Set != "" {
		data["shareSetId"] = e.Set
	}
	o := map[string]any{
		"eventName": "wallet.delegation.created", "eventId": e.Name(), "messageId": "message-" + e.Name(), "environmentId": environment,
		"timestamp": at.Format("2006-01-02T15:04:05.000Z"), "webhookId": "theirs", "userId": nil, "data": data,
	}
	if e.Revoked {
		o["eventName"] = "wallet.delegation.revoked"
	} else {
		data["publicKey"] = n.vendorAddress(e.Vendor)
		data["encryptedDelegatedShare"] = envelope(key, fmt.Sprintf(`{"pubkey":{},"secretShare":"%s of %d, %s"}`, e.Mood, e.Vendor, e.Name()))
		data["encryptedWalletApiKey"] = envelope(n.encrypt, "dyn_"+e.Name())
	}
	b, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	n.sent[id] = b
	return bytes.Clone(b)
}

// envelope encrypts as the vendor does.
func envelope(key *rsa.PublicKey, plain string) map[string]any {
	e, err := testvendor.Envelope(key, []byte(plain))
	if err != nil {
		panic(err)
	}
	return e
}

// vendorProgram is the double of the vendor's: it does what the share's mood says.
type vendorProgram struct{ away atomic.Bool }

// Connect implements delivery.Program.
func (p *vendorProgram) Connect(context.Context) (delivery.Run, error) {
	if p.away.Load() {
		return nil, errors.New("the unit is away")
	}
	return vendorRun{}, nil
}

type vendorRun struct{}

func (vendorRun) Close() error { return nil }

// Sign implements delivery.Run.
func (vendorRun) Sign(_ context.Context, request, share, apiKey, _ []byte) ([]byte, error) {
	var r struct {
		Address string `json:"address"`
		Signed  []byte `json:"signed"`
	}
	var s struct {
		SecretShare string `json:"secretShare"`
	}
	if err := errors.Join(json.Unmarshal(request, &r), json.Unmarshal(share, &s)); err != nil {
		return nil, err
	}
	var mood model.Mood
	var vendor int
	var event string
	if _, err := fmt.Sscanf(s.SecretShare, "%s of %d, %s", &mood, &vendor, &event); err != nil {
		return nil, err
	}
	if string(apiKey) != "dyn_"+event {
		return nil, errors.New("share and API key are of two deliveries")
	}
	key, err := solana.ParseAddress(r.Address)
	if err != nil {
		return nil, err
	}
	doubles.mu.Lock()
	defer doubles.mu.Unlock()
	switch private := doubles.keys[string(key[:])]; mood {
	case model.Good:
		return ed25519.Sign(private, r.Signed), nil
	case model.Foreign:
		return ed25519.Sign(private, append(bytes.Clone(r.Signed), 0)), nil
	}
	return nil, errors.New("the vendor's service is down")
}
