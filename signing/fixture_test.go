package signing_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/evm"
	"github.com/sigild/sigild/chains/solana"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/mpctest"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/signing"
	"github.com/sigild/sigild/vault"
)

const (
	signMethod = "/sigil.v1.SigningService/Sign"
	cluster    = "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"
	sol        = cluster + "/slip44:501"
	wei        = "eip155:1/slip44:60"
	day        = 24 * time.Hour
)

var (
	evmPayee = common.HexToAddress("0x9cAd63E4C09A9bD195568fC662835046C3605873")
	solPayee = [32]byte{7, 7, 7, 7, 1}
	evmAllow = policy.Policy{Name: "payouts", Effect: policy.Allow, Lang: policy.LangSigild,
		Condition: "eth.tx.to == '" + evmPayee.Hex() + "' && eth.tx.value <= 500 && eth.tx.data == '0x' && eth.tx.chain_id == 1"}
	solAllow = policy.Policy{Name: "payouts", Effect: policy.Allow, Lang: policy.LangSigild,
		Condition: "solana.tx.instructions.count() == 1 && solana.tx.transfers.count() == 1 && solana.tx.transfers.all(t, t.to == '" + solana.Address(solPayee) + "' && t.amount <= 500)"}
)

// clock is the time of a house; step, when set, moves it after that many looks.
type clock struct {
	mu    sync.Mutex
	t     time.Time
	looks int
	by    time.Duration
	// judge, when set, is asked instead.
	judge func() time.Time
}

func (c *clock) now() time.Time {
	if c.judge != nil {
		return c.judge()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.t
	if c.looks > 0 {
		if c.looks--; c.looks == 0 {
			c.t = c.t.Add(c.by)
		}
	}
	return now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// after moves the clock by d when it was looked at n more times.
func (c *clock) after(n int, d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.looks, c.by = n, d
}

// terms are what a delegation of a test is made of. Zero: a Solana wallet, solAllow,
// no limit, no end.
type terms struct {
	set      mpctest.Set
	policies []policy.Policy
	limits   []policy.Limit
	// templates are the delegation's; with them it may have no policy.
	templates []delegation.Template
	end       time.Time
	// presignatures are wanted for the key.
	presignatures bool
}

// grant is a delegation, its wallet and its API key.
type grant struct {
	id, wallet string
	kind       chains.Kind
	key        []byte
	set        mpctest.Set
}

// house is one store with all rooms open.
type house struct {
	t          testing.TB
	dir        string
	clock      *clock
	log        *logBuffer
	vault      *vault.Vault
	journal    *journal.Journal
	delegation *delegation.Service
	signing    *signing.Service
	archive    journal.Archive
	grants     []*grant
}

// newHouse opens a copy of the shared store with one delegation for each of ts.
func newHouse(t testing.TB, ts ...terms) (*house, []*grant) {
	t.Helper()
	h := &house{t: t, dir: filepath.Join(t.TempDir(), "state"), clock: &clock{t: began.Add(time.Minute)}, log: &logBuffer{}}
	copyStore(t, site.dir, h.dir)
	h.openVault()
	for i, x := range ts {
		h.grants = append(h.grants, h.grant(i, x))
	}
	h.openRooms(signing.Config{})
	return h, h.grants
}

// again opens a copy of h's store as it is on disk at this moment, as after kill -9.
func (h *house) again() *house {
	h.t.Helper()
	c := &house{t: h.t, dir: filepath.Join(h.t.TempDir(), "copy"), clock: &clock{t: h.clock.now()}, log: &logBuffer{}, grants: h.grants}
	copyStore(h.t, h.dir, c.dir)
	c.openVault()
	c.openRooms(signing.Config{})
	return c
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
	if err := v.Unseal(ctx, map[string]seal.Sealer{site.device.ID(): site.device}); err != nil {
		h.t.Fatal(err)
	}
	h.vault = v
}

// openRooms opens journal, delegation and signing; cfg says what differs from the default.
func (h *house) openRooms(cfg signing.Config) {
	h.t.Helper()
	ctx := context.Background()
	var err error
	h.journal, err = journal.Open(ctx, h.vault, journal.Config{Signer: site.device, CheckpointKey: site.checkpoint, Archive: h.archive, Now: h.clock.now, Log: h.log.logger()})
	if err != nil {
		h.t.Fatal(err)
	}
	h.delegation, err = delegation.Open(ctx, delegation.Config{Vault: h.vault, Journal: h.journal, Now: h.clock.now, Log: h.log.logger()})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(h.delegation.Close)
	h.t.Cleanup(h.keepsSecrets)
	h.serve(cfg)
}

// serve makes h's signing service anew; cfg says what differs from the default.
func (h *house) serve(cfg signing.Config) {
	cfg.Vault, cfg.Journal, cfg.Now, cfg.Log = h.vault, h.journal, h.clock.now, h.log.logger()
	if cfg.Authority == nil {
		cfg.Authority = h.delegation
	}
	cfg.Failed = h.delegation.CountFailure
	h.signing = signing.New(cfg)
	h.t.Cleanup(h.signing.Close)
}

// grant writes what the acts and ceremonies of package delegation would have left:
// records in its format, with a share set of mpctest.
func (h *house) grant(i int, x terms) *grant {
	h.t.Helper()
	if x.set.ID == "" {
		x.set = mpctest.Ed25519DelegateSet(h.t)
	}
	g := &grant{id: fmt.Sprintf("dlg_%d", i), wallet: "wal_" + x.set.ID, kind: chains.KindSolanaMessage, set: x.set}
	keyID, chain, address := "key_"+x.set.ID, cluster, ""
	allow := solAllow
	if x.set.Scheme == chains.ECDSASecp256k1 {
		a, err := evm.Address(x.set.PublicKey)
		if err != nil {
			h.t.Fatal(err)
		}
		g.kind, chain, address, allow = chains.KindEVMTransaction, "eip155", evm.Checksum(a), evmAllow
	} else {
		address = solana.Address([32]byte(x.set.PublicKey))
	}
	if x.policies == nil && x.templates == nil {
		x.policies = []policy.Policy{allow}
	}
	for n := range x.policies {
		x.policies[n].ID, x.policies[n].Scope.Delegation = fmt.Sprintf("pol_%d", n), g.id
	}
	for n := range x.limits {
		x.limits[n].ID, x.limits[n].Delegation = fmt.Sprintf("lim_%d", n), g.id
	}
	apiKeyID := fmt.Sprintf("%026d", i)
	g.key = []byte("sgk_" + apiKeyID + "_" + base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{byte('A' + i)}, 32)))
	dlg := map[string]any{
		"v": 1, "id": g.id, "organization": site.organization, "wallet": g.wallet, "owner": site.owner, "delegated_user": site.bot,
		"status": "active", "created_at": began, "api_key_recipient": "age1", "policies": x.policies, "limits": x.limits, "templates": x.templates,
		"share_set": x.set.ShareSet, "api_key": apiKeyID, "version": 2,
	}
	if !x.end.IsZero() {
		dlg["expires_at"] = x.end
	}
	h.update(func(tx *vault.Tx) error {
		h.put(tx, vault.TypeKey, keyID, map[string]any{
			"v": 1, "id": keyID, "organization": site.organization, "owner": site.owner, "scheme": x.set.Scheme, "created_at": began,
			"origin": "in_process", "status": "active", "root": x.set.ShareSet, "here": []mpc.Party{mpc.Recovery, mpc.Server}, "presignatures": x.presignatures,
		})
		h.put(tx, vault.TypeWallet, g.wallet, map[string]any{
			"v": 1, "id": g.wallet, "organization": site.organization, "key": keyID, "owner": site.owner, "chain": chain, "name": "main",
			"address": address, "status": "active", "created_at": began,
		})
		h.put(tx, vault.TypeDelegation, g.id, dlg)
		h.put(tx, vault.TypeAPIKey, apiKeyID, map[string]any{
			"v": 1, "id": apiKeyID, "delegation": g.id, "created_at": began, "verifier": h.verifier(g.key), "encrypted": []byte("age"),
		})
		for n, p := range x.set.Parties {
			if err := tx.Put(vault.TypeShare, delegation.ShareID(x.set.ID, p), x.set.Shares(h.t)[n]); err != nil {
				return err
			}
		}
		return nil
	})
	return g
}

func (h *house) put(tx *vault.Tx, t vault.Type, id string, rec any) {
	b, err := json.Marshal(rec)
	if err == nil {
		err = tx.Put(t, id, b)
	}
	if err != nil {
		h.t.Error(err)
	}
}

func (h *house) update(f func(tx *vault.Tx) error) {
	h.t.Helper()
	if err := h.vault.Update(context.Background(), f); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) verifier(key []byte) (sum []byte) {
	err := h.vault.Derive("sigild/apikey/v1", func(k []byte) error {
		m := hmac.New(sha256.New, k)
		m.Write(key)
		sum = m.Sum(nil)
		return nil
	})
	if err != nil {
		h.t.Error(err)
	}
	return sum
}

// request is a good request of g's holder.
func (g *grant) request(id string, payload []byte) signing.Request {
	return signing.Request{ID: id, WalletID: g.wallet, Kind: g.kind, Payload: payload, APIKey: bytes.Clone(g.key), Method: signMethod, Caller: caller}
}

func (h *house) sign(g *grant, id string, payload []byte) (*signing.Result, error) {
	return h.signing.Sign(context.Background(), g.request(id, payload))
}

func (h *house) mustSign(g *grant, id string, payload []byte) *signing.Result {
	h.t.Helper()
	r, err := h.sign(g, id, payload)
	if err != nil {
		h.t.Fatalf("signing %s: %v", id, err)
	}
	g.verify(h.t, r, payload)
	return r
}

// wantRefusal insists on a reason and returns the refusal.
func wantRefusal(t testing.TB, err error, want refusal.Reason) *refusal.Error {
	t.Helper()
	no, ok := err.(*refusal.Error) // not wrapped: this is what the caller is told
	if !ok || no.Reason != want {
		t.Fatalf("error is %v, want a refusal %s", err, want)
	}
	return no
}

// entries are the journal's of one kind, of all when kind is "".
func (h *house) entries(kind journal.Kind) (of []journal.Entry) {
	h.t.Helper()
	all, err := h.journal.Entries(context.Background(), 1, 1<<20)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, e := range all {
		if kind == "" || e.Kind == kind {
			of = append(of, e)
		}
	}
	return of
}

// wantKinds compares how many entries there are of the kinds that end or begin requests.
func (h *house) wantKinds(approved, signed, failed, unknown int) {
	h.t.Helper()
	got := [...]int{len(h.entries(journal.KindApproved)), len(h.entries(journal.KindSigned)), len(h.entries(journal.KindFailed)), len(h.entries(journal.KindOutcomeUnknown))}
	if want := [...]int{approved, signed, failed, unknown}; got != want {
		h.t.Errorf("journal has %v entries approved, signed, failed, outcome_unknown; want %v", got, want)
	}
}

// wantRefused insists that the last entry is the refusal that the caller got.
func (h *house) wantRefused(no *refusal.Error, id string) {
	h.t.Helper()
	all := h.entries("")
	e := all[len(all)-1]
	if e.Kind != journal.KindRefused || e.RequestID != id || e.Outcome != string(no.Reason) || e.Rule != no.Details["rule"] || e.Reason != no.Message || len(e.Charges) != 0 {
		h.t.Errorf("last entry %+v, want the refusal of %s: %v", e, id, no)
	}
}

// spent is what g's delegation ever spent of asset in transfers, in flight or done.
func (h *house) spent(g *grant, asset string) uint64 {
	h.t.Helper()
	s := h.journal.Spent(journal.ByDelegation(g.id), asset, journal.ButFees, time.Time{})
	if s.Unbounded || !s.Sum.IsUint64() {
		h.t.Fatalf("spent %+v", s)
	}
	return s.Sum.Uint64()
}

// limit bounds lamports in a window.
func limit(lamports uint64, window time.Duration) []policy.Limit {
	return []policy.Limit{{Name: "pocket money", Asset: sol, Max: *uint256.NewInt(lamports), Window: window}}
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

// keepsSecrets looks for API keys and share bytes in all that was logged and
// journaled during a test.
func (h *house) keepsSecrets() {
	text := h.log.String()
	if !h.vault.Sealed() {
		b, err := json.Marshal(h.entries(""))
		if err != nil {
			h.t.Error(err)
		}
		text += string(b)
	}
	for _, g := range h.grants {
		secrets := []string{string(g.key[31:])}
		for _, share := range g.set.Shares(h.t) {
			part := share[len(share)/2:][:24]
			secrets = append(secrets, string(part), hex.EncodeToString(part), base64.StdEncoding.EncodeToString(part))
		}
		for _, s := range secrets {
			if strings.Contains(text, s) {
				h.t.Errorf("a secret of %s was logged or journaled", g.id)
			}
		}
	}
}
