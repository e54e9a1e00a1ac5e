package signing_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/hsm"
	"github.com/sigild/sigild/internal/testdisk"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/signing"
	"github.com/sigild/sigild/vault"
)

// The long campaigns about limits: a sample in make test, all of it with CAMPAIGN=1
// (make campaign-limits). A seed is printed where there is one.

// sized is how much of a campaign runs.
func sized(t *testing.T, sample, all int) int {
	if os.Getenv("CAMPAIGN") == "" {
		return sample
	}
	t.Logf("the whole campaign: %d", all)
	return all
}

// A limit of room payments of amount lamports, and a little.
const (
	room   = 5
	amount = 300
)

// childEnv holds a [childSite] in JSON: then this binary is a signer that signs until
// it is killed.
const childEnv = "SIGILD_SIGNING_CHILD"

// childSite is what a child needs to open a store that its parent made.
type childSite struct {
	Dir, Pin, Checkpoint string
	Token                tokenSite
	Wallet               string
	APIKey               []byte
	PublicKey            []byte
	Began                time.Time
	// Run tells the requests of children apart.
	Run int
}

// runChild keeps four requests under way, and says of each: "leaves" before its last
// share may, "signed" when it was acknowledged. One write(2) a line.
func runChild(text string) error {
	var c childSite
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return err
	}
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
	now := func() time.Time { return c.Began }
	v, err := vault.Open(ctx, vault.Config{Dir: c.Dir, Now: now}, pin)
	if err != nil {
		return err
	}
	defer v.Close()
	if err := v.Unseal(ctx, map[string]seal.Sealer{device.ID(): device}); err != nil {
		return err
	}
	j, err := journal.Open(ctx, v, journal.Config{Signer: device, CheckpointKey: seal.KeyRef(c.Checkpoint), Now: now})
	if err != nil {
		return err
	}
	d, err := delegation.Open(ctx, delegation.Config{Vault: v, Journal: j, Now: now})
	if err != nil {
		return err
	}
	defer d.Close()
	s := signing.New(signing.Config{Authority: d, Vault: v, Journal: j, Now: now})
	defer s.Close()
	s.BeforeRelease(func() { fmt.Println("leaves") })
	g := &grant{wallet: c.Wallet, kind: "solana.message", key: c.APIKey}
	g.set.PublicKey = c.PublicKey
	var workers sync.WaitGroup
	for w := range 4 {
		workers.Go(func() {
			for n := range 4 {
				id := fmt.Sprintf("run-%d-%d-%d", c.Run, w, n)
				_, err := s.Sign(ctx, g.request(id, g.pay(amount, byte(16*w+n))))
				switch {
				case err == nil:
					fmt.Println("signed", id)
				case !refusal.Is(err, refusal.LimitExceeded):
					fmt.Println("failed", err)
					return
				}
			}
		})
	}
	workers.Wait()
	return nil
}

// Killed before any write, truncation or fsync of a run of payments: whatever the
// child had sent and whoever goes on, the limit is not passed, what was acknowledged
// is there, and in the end exactly as much is charged as the limit has room for.
func TestCampaignKillsWidenNoLimit(t *testing.T) {
	mnt, backing, disk := testdisk.Mount(t)
	runs, stride, most := sized(t, 8, 220), 17, 0
	if runs > 8 {
		stride = 1
	}
	rng := rand.New(rand.NewPCG(11, 0))
	inside, kills := 0, 0
	for run := range runs {
		h, g := newHouse(t, terms{limits: limit(room*amount+amount-1, day)})
		name := fmt.Sprint("run", run)
		if err := os.Mkdir(filepath.Join(backing, name), 0o700); err != nil {
			t.Fatal(err)
		}
		copyStore(t, h.dir, filepath.Join(mnt, name, "state"))
		at := 1 + run*stride // every operation once; when a run is over before it, one of those before
		if most > 0 && at > most {
			at = 1 + rng.IntN(most)
		}
		leaves, acked, ops := h.killed(t, filepath.Join(mnt, name, "state"), g[0], disk, at, run)
		switch {
		case ops > 0:
			most = ops
		case leaves > 0:
			inside++
			kills++
		default:
			kills++
		}

		// What the disk really holds, and others who go on.
		after := h.openAt(filepath.Join(backing, name, "state"))
		left := 0
		after.signing.BeforeRelease(func() { left++ })
		for i := range room + 2 {
			if _, err := after.sign(g[0], fmt.Sprint("after-", i), g[0].pay(amount, byte(100+i))); err != nil && !refusal.Is(err, refusal.LimitExceeded) {
				t.Fatalf("run %d: going on: %v", run, err)
			}
		}
		if leaves+left > room {
			t.Errorf("run %d, killed before operation %d: %d last shares left before and %d after, of %d", run, at, leaves, left, room)
		}
		if s := after.spent(g[0], sol); s != room*amount {
			t.Errorf("run %d, killed before operation %d: %d charged in the end, want %d", run, at, s, room*amount)
		}
		for _, id := range acked {
			if st, ok, err := after.journal.Request(site.organization, id); err != nil || !ok || st.State != journal.StateSigned {
				t.Errorf("run %d, killed before operation %d: %s was acknowledged and is %q, %v", run, at, id, st.State, err)
			}
		}
		after.close()
		h.close()
		if err := os.RemoveAll(filepath.Join(backing, name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d children, %d killed, %d of them after a last share had left", runs, kills, inside)
}

// killed runs a child on the store until its operation at; ops is how many there were
// when it came to its end before.
func (h *house) killed(t *testing.T, dir string, g *grant, disk *testdisk.Disk, at, run int) (leaves int, acked []string, ops int) {
	t.Helper()
	pin, err := site.pin.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(childSite{
		Dir: dir, Pin: string(pin), Checkpoint: string(site.checkpoint), Token: site.token, Wallet: g.wallet, APIKey: g.key,
		PublicKey: g.set.PublicKey, Began: h.clock.now(), Run: run,
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	disk.Arm(testdisk.Tell, at, func() { _ = cmd.Process.Kill() }) // SIGKILL; it waits in this very operation
	said := bufio.NewScanner(out)
	for said.Scan() {
		switch word, rest, _ := strings.Cut(said.Text(), " "); word {
		case "leaves":
			leaves++
		case "signed":
			acked = append(acked, rest)
		default:
			t.Errorf("child said %q", said.Text())
		}
	}
	err = cmd.Wait()
	if disk.Fired() {
		disk.Arm(testdisk.Tell, 0, nil)
		return leaves, acked, 0
	}
	disk.Arm(testdisk.Tell, 0, nil)
	if err != nil {
		t.Fatalf("child failed by itself: %v: %s", err, stderr.String())
	}
	return leaves, acked, at - 1
}

// A disk that is full, or fails, at any operation: what can't be reserved is refused
// and nothing is signed; afterwards the limit is where it was.
func TestCampaignFailingDiskSignsNothingUncounted(t *testing.T) {
	mnt, backing, disk := testdisk.Mount(t)
	step, runs, refused := 1, 0, 0
	if os.Getenv("CAMPAIGN") == "" {
		step = 19
	}
	for _, kind := range []testdisk.Fault{testdisk.ENOSPC, testdisk.EIO, testdisk.Fsync, testdisk.ShortWrite, testdisk.Dead} {
		for at := 1; ; at += step {
			h, g := newHouse(t, terms{limits: limit(room*amount+amount-1, day)})
			name := fmt.Sprint("run", runs)
			if err := os.Mkdir(filepath.Join(backing, name), 0o700); err != nil {
				t.Fatal(err)
			}
			copyStore(t, h.dir, filepath.Join(mnt, name, "state"))
			faulty := h.openAt(filepath.Join(mnt, name, "state"))
			disk.Arm(kind, at, nil)
			leaves := 0
			faulty.signing.BeforeRelease(func() { leaves++ })
			var acked []string
			for i := range room + 1 {
				id := fmt.Sprint("id-", i)
				_, err := faulty.sign(g[0], id, g[0].pay(amount, byte(i)))
				switch {
				case err == nil:
					acked = append(acked, id)
				case refusal.Is(err, refusal.LimitExceeded):
				case errors.Is(err, vault.ErrStoreFull), errors.Is(err, vault.ErrUnwritable), errors.Is(err, vault.ErrInUse), errors.Is(err, vault.ErrTampered), refusal.Is(err, refusal.OutcomeUnknown):
					refused++
				default:
					t.Errorf("%s at operation %d: %v", kind, at, err)
				}
			}
			fired := disk.Fired()
			disk.Arm(kind, 0, nil)
			faulty.abandon()

			after := h.openAt(filepath.Join(backing, name, "state"))
			charged := after.spent(g[0], sol)
			if int(charged) < leaves*amount || charged > room*amount {
				t.Errorf("%s at operation %d: %d last shares left and %d are charged", kind, at, leaves, charged)
			}
			for _, id := range acked {
				if st, ok, err := after.journal.Request(site.organization, id); err != nil || !ok || st.State != journal.StateSigned {
					t.Errorf("%s at operation %d: %s was acknowledged and is %q, %v", kind, at, id, st.State, err)
				}
			}
			after.close()
			h.close()
			if err := os.RemoveAll(filepath.Join(backing, name)); err != nil {
				t.Fatal(err)
			}
			if runs++; !fired {
				break
			}
		}
	}
	t.Logf("%d runs, %d requests were refused", runs, refused)
}

// payment is what a client of a history asks for, verdict what it hears.
type (
	payment struct{ lamports uint64 }
	verdict struct{ paid bool }
)

// spender is a limit as one who asks one after the other sees it.
func spender(most uint64) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return uint64(0) },
		Step: func(state, in, out any) (bool, any) {
			spent, asked := state.(uint64), in.(payment).lamports
			if out.(verdict).paid {
				return spent+asked <= most, spent + asked
			}
			return spent+asked > most, spent
		},
		DescribeOperation: func(in, out any) string { return fmt.Sprint(in, " → ", out) },
	}
}

// Histories of clients that pay at once are those of clients that pay one after the
// other: each is allowed exactly if the limit had room when its turn was.
func TestCampaignHistoriesAreLinear(t *testing.T) {
	const seed = 3
	rng := rand.New(rand.NewPCG(seed, 0))
	for history := range sized(t, 12, 240) {
		clients, each := 4+rng.IntN(9), 3
		most := uint64(500 + rng.IntN(4000))
		x := terms{limits: limit(most, day)}
		if history%3 == 0 {
			x = withControl(most)
		}
		h, g := newHouse(t, x)
		h.serve(signing.Config{MaxConcurrent: 64})
		asks := make([][]uint64, clients)
		for c := range asks {
			for range each {
				asks[c] = append(asks[c], uint64(1+rng.IntN(500)))
			}
		}
		var mu sync.Mutex
		var ops []porcupine.Operation
		began := time.Now()
		var all sync.WaitGroup
		for c := range clients {
			all.Go(func() {
				for n, lamports := range asks[c] {
					op := porcupine.Operation{ClientId: c, Input: payment{lamports}, Call: int64(time.Since(began))}
					_, err := h.sign(g[0], fmt.Sprintf("h-%d-%d", c, n), g[0].pay(lamports, byte(16*c+n)))
					if err != nil && !refusal.Is(err, refusal.LimitExceeded) && !refusal.Is(err, refusal.PolicyDenied) {
						t.Errorf("history %d: %v", history, err)
						return
					}
					op.Output, op.Return = verdict{err == nil}, int64(time.Since(began))
					mu.Lock()
					ops = append(ops, op)
					mu.Unlock()
				}
			})
		}
		all.Wait()
		if got := porcupine.CheckOperationsTimeout(spender(most), ops, time.Minute); got != porcupine.Ok {
			t.Errorf("history %d (seed %d) of %d payments within %d: %s", history, seed, len(ops), most, got)
		}
		h.close()
	}
}

// openAt opens the store of another place as h has its own.
func (h *house) openAt(dir string) *house {
	h.t.Helper()
	c := &house{t: h.t, dir: dir, clock: &clock{t: h.clock.now()}, log: &logBuffer{}, grants: h.grants}
	c.openVault()
	c.openRooms(signing.Config{})
	return c
}

// close ends h before its test does; what its cleanup does then does nothing more.
func (h *house) close() {
	h.t.Helper()
	h.signing.Close()
	h.delegation.Close()
	if err := h.vault.Close(); err != nil {
		h.t.Error(err)
	}
}

// abandon is close for a store whose disk failed.
func (h *house) abandon() {
	h.signing.Close()
	h.delegation.Close()
	_ = h.vault.Close()
}
