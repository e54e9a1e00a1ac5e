package delegation

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/hsm"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/mpctest"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/vault"
)

// Processes that are killed with SIGKILL while they make keys and root sets: at each
// of their durable writes, and by chance. Whatever the moment, the store opens with
// exactly one root set a key, whole, or with no key at all.

const childEnv = "SIGILD_DELEGATION_CHILD"

// child is what a process of its own does until it is killed or has done it.
type child struct {
	Dir     string
	HSM     hsm.Config
	Check   seal.KeyRef
	Pin     string
	Org     string
	Owner   string
	Dana    []byte
	Root    [][]byte
	Verb    string // "rotate", "issue", "keygen", "import", "access", "hand-over" or "join"
	Bot     string
	Gets    string // the API key: an age recipient
	Wallet  string
	Chain   string
	KillAt  int64 // before its KillAt-th durable write; 0: never
	Steps   bool  // KillAt counts the looks at the clock in between, too: one a record at least
	Primes  [][]byte
	Request string
	Joined  joining // of "join"
}

func (c child) run() error {
	ctx := context.Background()
	device, err := hsm.Open(ctx, c.HSM)
	if err != nil {
		return err
	}
	defer device.Close()
	pin, err := vault.ParsePin([]byte(c.Pin))
	if err != nil {
		return err
	}
	var armed atomic.Bool
	var writes atomic.Int64
	// The vault reads its clock once for each batch that it is about to write.
	now := func() time.Time {
		if armed.Load() && writes.Add(1) == c.KillAt {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		return time.Now()
	}
	v, err := vault.Open(ctx, vault.Config{Dir: c.Dir, Now: now}, pin)
	if err != nil {
		return err
	}
	defer v.Close()
	if err := v.Unseal(ctx, map[string]seal.Sealer{device.ID(): device}); err != nil {
		return err
	}
	entries := time.Now
	if c.Steps {
		entries = now // which is the clock of what acts write
	}
	j, err := journal.Open(ctx, v, journal.Config{Signer: device, CheckpointKey: c.Check, Now: entries})
	if err != nil {
		return err
	}
	var taken atomic.Int64
	own := time.Now
	if at := c.Joined.At; !at.IsZero() {
		own = func() time.Time { return at }
	}
	s, err := Open(ctx, Config{Vault: v, Journal: j, Now: own, PreParameters: func(context.Context) (*mpc.PreParams, error) {
		return mpc.ParsePreParams(c.Primes[int(taken.Add(1)-1)%len(c.Primes)])
	}})
	if err != nil {
		return err
	}
	defer s.Close()
	armed.Store(true)
	fmt.Println("ready")
	if err := c.act(ctx, s); err != nil {
		return err
	}
	s.running.Wait()
	fmt.Println("done", writes.Load())
	return nil
}

func (c child) act(ctx context.Context, s *Service) (err error) {
	a := Actor{Method: "/test", Organization: c.Org}
	keys := c.Root
	if c.Verb == "rotate" || c.Verb == "issue" {
		keys = [][]byte{c.Dana}
	}
	for _, b := range keys {
		k, err := credential.ParsePublicKey(credential.Ed25519, b)
		if err != nil {
			return err
		}
		a.Credentials = append(a.Credentials, k)
	}
	n := NewWallet{RequestID: c.Request, Organization: c.Org, Owner: c.Owner, Chain: c.Chain, Name: "new"}
	switch c.Verb {
	case "rotate":
		_, err = s.RotateKey(ctx, a, NewRotation{RequestID: c.Request, Organization: c.Org, Wallet: c.Wallet})
	case "issue":
		_, err = s.CreateDelegation(ctx, a, NewDelegation{RequestID: c.Request, Organization: c.Org, Wallet: c.Wallet, DelegatedUser: c.Bot,
			Recipient: c.Gets, Policies: []policy.Policy{allow}})
	case "keygen":
		_, err = s.CreateWallet(ctx, a, n)
	case "access":
		_, n := newAccess(c.Request, 1)
		n.Parent, n.Wallets = c.Org, []NewWallet{{Chain: c.Chain, Name: "savings"}}
		n.Policies[0].Wallet = walletHole(1)
		n.Limits = []policy.Limit{{Name: "an hour", Asset: cluster + "/slip44:501", MaxCount: 3, AnyAmount: true, Window: time.Hour}}
		_, err = s.CreateDelegatedAccess(ctx, a, n)
	case "hand-over":
		_, err = s.DelegateKey(ctx, a, NewKeyDelegation{RequestID: c.Request, Organization: c.Org, Key: "key_" + delayWallet, To: c.Owner})
	case "join":
		err = c.Joined.act(ctx, s)
	case "import":
		_, err = s.ImportWallet(ctx, a, NewImport{NewWallet: n, Secret: bytes.Repeat([]byte{5}, 32)})
	}
	return err
}

// childMain is what TestMain runs in a child.
func childMain(text string) int {
	var c child
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	if err := c.run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// killed runs a child over h's store, closed meanwhile, and opens it again. The child
// is killed before its at-th durable write, or, if at is 0, after a while.
func (h *house) killed(verb, chain, request string, at int64, after time.Duration) (done bool) {
	h.t.Helper()
	return h.killedIn(child{Verb: verb, Chain: chain, Request: request, KillAt: at}, after)
}

// killedIn is killed for a child that has its part already. after counts where nothing
// else kills it.
func (h *house) killedIn(c child, after time.Duration) (done bool) {
	h.t.Helper()
	h.Service.Close()
	if err := h.cfg.Vault.Close(); err != nil {
		h.t.Fatal(err)
	}
	pin, err := site.pin.MarshalText()
	if err != nil {
		h.t.Fatal(err)
	}
	c.Dir, c.HSM, c.Check, c.Pin, c.Org, c.Owner = h.dir, site.hsm, site.config.CheckpointKey, string(pin), site.acme, site.dana.id
	c.Dana, c.Wallet, c.Bot, c.Gets = site.dana.key.Public().Bytes, solWallet, site.bot, site.recipient.Recipient().String()
	if c.Chain == "eip155" {
		c.Wallet = ethWallet
	}
	for _, r := range site.root {
		c.Root = append(c.Root, r.key.Public().Bytes)
	}
	for i := range 3 {
		c.Primes = append(c.Primes, mpctest.EncodedPreParams(h.t, i))
	}
	text, err := json.Marshal(c)
	if err != nil {
		h.t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	for sc := bufio.NewScanner(out); sc.Scan(); {
		switch line := sc.Text(); {
		case line == "ready" && c.KillAt == 0 && c.Joined.KillFrame == 0:
			time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		case strings.HasPrefix(line, "done"):
			done = true
		}
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL) || stderr.Len() > 0 {
		h.t.Fatalf("child: %v\n%s", err, stderr.String())
	}
	h.openVault()
	h.open()
	return done
}

// wantWhole insists that each key has exactly one root set, whole, or none and failed,
// that no ceremony goes on, and that the journal and the store hold no other share.
func (h *house) wantWhole(what string) {
	h.t.Helper()
	for _, k := range h.book.keys {
		if k.Status == statusPending {
			h.t.Errorf("%s: key %s is still pending", what, k.ID)
		}
		if k.Status == statusActive && len(k.Here) != 2 {
			h.t.Errorf("%s: key %s has shares of %v here", what, k.ID, k.Here)
		}
	}
	for id, d := range h.book.delegations {
		if d.Status == statusPending {
			h.t.Errorf("%s: delegation %s is still pending", what, id)
		}
		if d.Status == statusActive && h.book.apiKeys[d.APIKey] != d.ID {
			h.t.Errorf("%s: delegation %s has no API key", what, id)
		}
	}
	for _, c := range h.book.ceremonies {
		if c.Status == statusRunning {
			h.t.Errorf("%s: ceremony %s still runs", what, c.ID)
		}
	}
	h.wantShares(what)
	for _, k := range h.book.keys {
		if k.Status == statusActive {
			h.wantSigns(what, k)
		}
	}
}

// wantShares insists that the store has the shares of the root sets and of active
// delegations, and no others.
func (h *house) wantShares(what string) {
	h.t.Helper()
	expected := map[string]bool{}
	for _, k := range h.book.keys {
		for _, p := range k.Here {
			expected[ShareID(k.Root.ID, p)] = true
		}
	}
	for _, d := range h.book.delegations {
		if d.Status == statusActive {
			for _, p := range d.Set.Parties {
				expected[ShareID(d.Set.ID, p)] = true
			}
		}
	}
	err := h.cfg.Vault.Each(context.Background(), vault.TypeShare, func(id string, encoded []byte) error {
		if !expected[id] {
			h.t.Errorf("%s: share %s is of no set", what, id)
		}
		delete(expected, id)
		_, _, err := mpc.DescribeShare(encoded)
		return err
	})
	if err != nil || len(expected) > 0 {
		h.t.Errorf("%s: %v; shares %v are missing", what, err, expected)
	}
}

// wantSigns signs with the quorum of a root set that is here.
func (h *house) wantSigns(what string, k *key) {
	h.t.Helper()
	in := chains.SignInput{Scheme: k.Scheme, Message: []byte("m")}
	if k.Scheme == chains.ECDSASecp256k1 {
		in = chains.SignInput{Scheme: k.Scheme, Digest: [32]byte{1}}
	}
	err := h.cfg.Vault.WithAll(context.Background(), vault.TypeShare, shareIDs(k.Root.ID, k.Here), func(shares [][]byte) error {
		_, err := mpc.Sign(context.Background(), mpc.SignRequest{Set: k.Root, Shares: shares, Input: in})
		return err
	})
	if err != nil {
		h.t.Errorf("%s: the root set of %s does not sign: %v", what, k.ID, err)
	}
}

// A rotation writes four times: the act, two stages, the new set. Killed before any of
// these it was never there; after the last one the old set was never there.
func TestKilledAtEachWriteOfAReshare(t *testing.T) {
	h := newHouse(t, withWallet)
	const writes = 4
	for at := int64(1); at <= writes+1; at++ {
		what := fmt.Sprint("killed before write ", at)
		old := h.keyOfWallet(solWallet).Root
		done := h.killed("rotate", cluster, fmt.Sprint("r", at), at, 0)
		h.wantWhole(what)
		now := h.keyOfWallet(solWallet).Root
		if changed := now.ID != old.ID; changed != done || done != (at > writes) || !bytes.Equal(now.PublicKey, old.PublicKey) {
			t.Errorf("%s: done %v, root set %s, was %s", what, done, now.ID, old.ID)
		}
	}
	// So does an issue, of all that a delegation is.
	for at := int64(1); at <= writes+1; at++ {
		done := h.killed("issue", cluster, fmt.Sprint("i", at), at, 0)
		h.wantWhole(fmt.Sprint("issue killed before write ", at))
		if done != (at > writes) {
			t.Errorf("issue killed before write %d: done %v", at, done)
		}
	}
	if e := h.entries(); !slices.ContainsFunc(e, func(e journal.Entry) bool { return e.Method == "ceremony/rotate" && e.Outcome == statusDone }) {
		t.Error("the journal has no end of the rotation")
	}
}

// No half-made key: of a keygen and an import either nothing is left or all.
func TestKilledAtEachWriteOfAKeygen(t *testing.T) {
	for _, verb := range []string{"keygen", "import"} {
		h := newHouse(t)
		for at := int64(1); ; at++ {
			keys := len(h.book.keys)
			done := h.killed(verb, cluster, fmt.Sprint(verb, at), at, 0)
			h.wantWhole(fmt.Sprintf("%s killed before write %d", verb, at))
			if done {
				if len(h.book.keys) != keys+1 || at < 4 {
					t.Errorf("%s: %d keys after %d writes, want one more than %d", verb, len(h.book.keys), at, keys)
				}
				break
			}
		}
	}
}

// times is the size of a campaign: a sample in make test, all with CAMPAIGN=1.
func times(t *testing.T, sample, all int) int {
	if os.Getenv("CAMPAIGN") == "" {
		return sample
	}
	t.Logf("the whole campaign: %d", all)
	return all
}

// Killed by chance: 30 rotations and 20 keygens in the campaign, a fifth of them ECDSA,
// where most of the time is computing.
func TestCampaignKillsInCeremonies(t *testing.T) {
	seed := uint64(1)
	if os.Getenv("CAMPAIGN") != "" {
		seed = uint64(time.Now().UnixNano())
	}
	rng := rand.New(rand.NewPCG(seed, 0))
	for _, c := range []struct {
		verb        string
		sample, all int
	}{{"rotate", 4, 30}, {"keygen", 3, 20}} {
		h := newHouse(t, withWallet, withEther)
		done := 0
		for i := range times(t, c.sample, c.all) {
			chain, within := cluster, 150*time.Millisecond
			if i%5 == 4 {
				chain, within = "eip155", 20*time.Second
			}
			after := time.Duration(rng.Int64N(int64(within)))
			if h.killed(c.verb, chain, fmt.Sprint("c", i), 0, after) {
				done++
			}
			h.wantWhole(fmt.Sprintf("seed %d, %s %d on %s killed after %v", seed, c.verb, i, chain, after))
		}
		t.Logf("seed %d: %d %s ceremonies had ended when their process was killed", seed, done, c.verb)
	}
}
