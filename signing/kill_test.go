package signing_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/hsm"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/signing"
	"github.com/sigild/sigild/vault"
)

// A process that signs, whole signatures and presigned ones, is killed with SIGKILL by
// chance, again and again on one store. What it acknowledged is there, byte for byte;
// what it had approved counts against the limit; and nothing was signed twice.

const signerEnv = "SIGILD_SIGNING_KILLED"

// signer is the process.
type signer struct {
	Dir   string
	Token tokenSite
	Check seal.KeyRef
	Pin   string
	Now   time.Time
	Round int
	// Warm: it begins with presignatures ready.
	Warm   bool
	Grants []signerGrant
}

type signerGrant struct {
	Wallet string
	Kind   chains.Kind
	Key    []byte
	// Payloads are signed in turn, each under an id of its own, until the process ends.
	Payloads [][]byte
}

func signerMain(text string) int {
	var c signer
	err := json.Unmarshal([]byte(text), &c)
	if err == nil {
		err = c.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func (c signer) run() error {
	ctx := context.Background()
	device, err := hsm.Open(ctx, c.Token.config())
	if err != nil {
		return err
	}
	defer device.Close()
	pin, err := vault.ParsePin([]byte(c.Pin))
	if err != nil {
		return err
	}
	start := time.Now()
	now := func() time.Time { return c.Now.Add(time.Since(start)) }
	v, err := vault.Open(ctx, vault.Config{Dir: c.Dir, Now: now}, pin)
	if err != nil {
		return err
	}
	if err := v.Unseal(ctx, map[string]seal.Sealer{device.ID(): device}); err != nil {
		return err
	}
	j, err := journal.Open(ctx, v, journal.Config{Signer: device, CheckpointKey: c.Check, Now: now})
	if err != nil {
		return err
	}
	d, err := delegation.Open(ctx, delegation.Config{Vault: v, Journal: j, Now: now})
	if err != nil {
		return err
	}
	pre := signing.NewPresignatures(signing.PresignConfig{Authority: d, Vault: v, Max: 4, CPU: 1})
	go func() { _ = pre.Run(ctx) }()
	s := signing.New(signing.Config{Authority: d, Vault: v, Journal: j, Presignatures: pre, Now: now})
	for warm := 0; c.Warm && warm < 2; time.Sleep(10 * time.Millisecond) {
		_, warm = pre.Ready("")
	}
	fmt.Println("ready")
	var all sync.WaitGroup
	var mu sync.Mutex // one line at a time
	var failed error
	for g, grant := range c.Grants {
		all.Go(func() {
			for n, payload := range grant.Payloads {
				id := fmt.Sprintf("r%d-%d-%d", c.Round, g, n)
				out, err := s.Sign(ctx, signing.Request{ID: id, WalletID: grant.Wallet, Kind: grant.Kind, Payload: payload, APIKey: grant.Key, Method: signMethod})
				mu.Lock()
				if err == nil {
					fmt.Println(id, g, n, hex.EncodeToString(out.Signature))
				} else {
					failed = errors.Join(failed, err)
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return failed
}

// killedSigner runs the process on h's store, closed meanwhile, kills it after a while
// and opens the store again. It returns what was acknowledged, by request id.
func (h *house) killedSigner(c signer, after time.Duration) map[string][]string {
	h.t.Helper()
	h.signing.Close()
	h.delegation.Close()
	if err := h.vault.Close(); err != nil {
		h.t.Fatal(err)
	}
	text, err := json.Marshal(c)
	if err != nil {
		h.t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), signerEnv+"="+string(text))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	acked := map[string][]string{}
	for sc := bufio.NewScanner(out); sc.Scan(); {
		if sc.Text() == "ready" {
			time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
			continue
		}
		if f := strings.Fields(sc.Text()); len(f) == 4 {
			acked[f[0]] = f[1:]
		}
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && (!errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL) || stderr.Len() > 0 {
		h.t.Fatalf("the process: %v\n%s", err, stderr.String())
	}
	h.openVault()
	h.openRooms(signing.Config{})
	return acked
}

func TestCampaignKillsWhileSigning(t *testing.T) {
	seed, kills := uint64(1), sized(t, 4, 150)
	if kills > 4 {
		seed = uint64(time.Now().UnixNano())
	}
	rng := rand.New(rand.NewPCG(seed, 0))
	h, g := newHouse(t, terms{limits: limit(1<<40, 0)}, etherTerms(t))
	pin, err := site.pin.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	total, lastByte := 0, 0
	for round := range kills {
		c := signer{Dir: h.dir, Token: site.token, Check: site.checkpoint, Pin: string(pin), Now: h.clock.now(), Round: round, Warm: round%3 == 1}
		for i, one := range g {
			sg := signerGrant{Wallet: one.wallet, Kind: one.kind, Key: one.key}
			for n := range 400 {
				payload := one.pay(uint64(1+round), byte(n))
				if i == 1 {
					payload = transfer(t, uint64(1000*round+n), 5)
				} else if n >= 256 {
					break
				}
				sg.Payloads = append(sg.Payloads, payload)
			}
			c.Grants = append(c.Grants, sg)
		}
		after := time.Duration(rng.Int64N(int64(1500 * time.Millisecond)))
		h.clock.add(time.Minute)
		acked := h.killedSigner(c, after)
		total += len(acked)
		what := fmt.Sprintf("seed %d, kill %d after %v", seed, round, after)
		approved := len(h.entries(journal.KindApproved))
		for id, f := range acked {
			grant, _ := strconv.Atoi(f[0])
			n, _ := strconv.Atoi(f[1])
			out, err := h.sign(g[grant], id, c.Grants[grant].Payloads[n])
			if want, _ := hex.DecodeString(f[2]); err != nil || !bytes.Equal(out.Signature, want) {
				t.Errorf("%s: %s was acknowledged and is answered otherwise: %v", what, id, err)
			}
		}
		if n := len(h.entries(journal.KindApproved)); n != approved {
			t.Errorf("%s: asking again made %d approvals", what, n-approved)
		}
		lastByte = approved
		h.wantWhole(what, g[0])
	}
	used := map[string]bool{}
	for _, e := range h.entries(journal.KindApproved) {
		if p := e.Facts["presignature"]; p != "" {
			if used[p] {
				t.Errorf("presignature %s was used twice", p)
			}
			used[p] = true
		}
	}
	t.Logf("seed %d: %d kills; %d signatures acknowledged, %d approved, %d of them presigned", seed, kills, total, lastByte, len(used))
}

// wantWhole insists that each approval has one end at least, that no two signatures have one R,
// and that all that was approved is charged.
func (h *house) wantWhole(what string, g *grant) {
	h.t.Helper()
	ends, charged := map[uint64]bool{}, uint64(0)
	rs := map[string]string{}
	for _, e := range h.entries("") {
		switch e.Kind {
		case journal.KindSigned, journal.KindFailed, journal.KindOutcomeUnknown:
			ends[e.ApprovedSeq] = true
		}
		if e.Kind == journal.KindSigned {
			r := string(e.Answer[:32])
			if id, again := rs[r]; again && id != e.RequestID {
				h.t.Errorf("%s: %s and %s have one R", what, id, e.RequestID)
			}
			rs[r] = e.RequestID
		}
	}
	for _, e := range h.entries(journal.KindApproved) {
		if !ends[e.Seq] {
			h.t.Errorf("%s: approval %d of %s has no end", what, e.Seq, e.RequestID)
		}
		if e.Delegation == g.id {
			amount, _ := strconv.ParseUint(e.Charges[0].Amount, 10, 64)
			charged += amount
		}
	}
	if spent := h.spent(g, sol); spent != charged {
		h.t.Errorf("%s: %d spent, %d were approved", what, spent, charged)
	}
}
