package delegation

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sigild/sigild/hsm"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/mpctest"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/vault"
)

// What a start costs is measured in a process of its own, which does what a daemon does
// between its start and READY but for config and sockets: the device, vault, unsealing
// through SoftHSM, journal, delegation state.

const startEnv = "SIGILD_DELEGATION_START"

// start is what such a process is told.
type start struct {
	Dir   string
	HSM   hsm.Config
	Check seal.KeyRef
	Pin   string
	// Ask says what is asked afterwards: how many API keys are authenticated, of ids by [syntheticKey].
	Ask, Of int
}

// started is what it answers.
type started struct {
	Wall, CPU time.Duration // from the beginning of main
	// RSS in bytes: when it has started, the most until then, and after the garbage is gone.
	RSS, Peak, Live int
	// Lookup is the CPU time of one [Service.Authenticate].
	Lookup time.Duration
}

// usage is the CPU time and the greatest RSS of this process.
func usage() (cpu time.Duration, peak int) {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		panic(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano()), int(r.Maxrss) << 10
}

func rss() (n int) {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		panic(err)
	}
	var size int
	if _, err := fmt.Sscan(string(text), &size, &n); err != nil {
		panic(err)
	}
	return n * os.Getpagesize()
}

// startMain is what TestMain runs in such a process.
func startMain(text string) int {
	if err := runStart(text); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func runStart(text string) error {
	began, ctx := time.Now(), context.Background()
	var in start
	if err := json.Unmarshal([]byte(text), &in); err != nil {
		return err
	}
	device, err := hsm.Open(ctx, in.HSM)
	if err != nil {
		return err
	}
	defer device.Close()
	pin, err := vault.ParsePin([]byte(in.Pin))
	if err != nil {
		return err
	}
	v, err := vault.Open(ctx, vault.Config{Dir: in.Dir}, pin)
	if err != nil {
		return err
	}
	defer func() { _ = v.Close() }()
	if err := v.Unseal(ctx, map[string]seal.Sealer{device.ID(): device}); err != nil {
		return err
	}
	j, err := journal.Open(ctx, v, journal.Config{Signer: device, CheckpointKey: in.Check})
	if err != nil {
		return err
	}
	s, err := Open(ctx, Config{Vault: v, Journal: j})
	if err != nil {
		return err
	}
	defer s.Close()
	out := started{Wall: time.Since(began), RSS: rss()}
	out.CPU, out.Peak = usage()
	debug.FreeOSMemory()
	out.Live = rss()
	before, _ := usage()
	for i := range in.Ask {
		// As many different ones whatever their number: what is kept serves both alike.
		n := i % 1000 * (in.Of / 1000)
		if _, err := s.Authenticate(syntheticWallet(n), syntheticKey(n)); err != nil {
			return fmt.Errorf("authenticating %d: %w", n, err)
		}
	}
	if after, _ := usage(); in.Ask > 0 {
		out.Lookup = (after - before) / time.Duration(in.Ask)
	}
	runtime.KeepAlive(s)
	return json.NewEncoder(os.Stdout).Encode(out)
}

// started opens the house's store, which is closed meanwhile, in a process of its own.
func (h *house) started(ask, of int) started {
	h.t.Helper()
	pin, err := site.pin.MarshalText()
	if err != nil {
		h.t.Fatal(err)
	}
	text, err := json.Marshal(start{Dir: h.dir, HSM: site.hsm, Check: site.config.CheckpointKey, Pin: string(pin), Ask: ask, Of: of})
	if err != nil {
		h.t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), startEnv+"="+string(text))
	answer, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		h.t.Fatalf("starting: %v\n%s", err, exit.Stderr)
	}
	var out started
	if err := json.Unmarshal(answer, &out); err != nil {
		h.t.Fatalf("starting: %v: %q", err, strings.TrimSpace(string(answer)))
	}
	return out
}

// reportStarts starts the house's store in b.Loop and reports the medians.
func (h *house) reportStarts(b *testing.B, ask, of int) {
	h.Service.Close()
	if err := h.cfg.Vault.Close(); err != nil {
		b.Fatal(err)
	}
	var all []started
	for b.Loop() {
		all = append(all, h.started(ask, of))
	}
	median := func(of func(started) float64) float64 {
		var list []float64
		for _, s := range all {
			list = append(list, of(s))
		}
		slices.Sort(list)
		return list[len(list)/2]
	}
	b.ReportMetric(median(func(s started) float64 { return s.Wall.Seconds() * 1000 }), "start-ms")
	b.ReportMetric(median(func(s started) float64 { return s.CPU.Seconds() * 1000 }), "start-cpu-ms")
	b.ReportMetric(median(func(s started) float64 { return float64(s.RSS) / (1 << 20) }), "MiB-RSS")
	b.ReportMetric(median(func(s started) float64 { return float64(s.Peak) / (1 << 20) }), "MiB-peak")
	b.ReportMetric(median(func(s started) float64 { return float64(s.Live) / (1 << 20) }), "MiB-live")
	if ask > 0 {
		b.ReportMetric(median(func(s started) float64 { return float64(s.Lookup.Nanoseconds()) / 1000 }), "lookup-cpu-us")
	}
	h.openVault()
	h.open()
}

// delegationsOfWallet is how many synthetic delegations each synthetic wallet has.
const delegationsOfWallet = 10

func syntheticWallet(n int) string { return fmt.Sprintf("wal_%05d", n/delegationsOfWallet) }

// syntheticKey is the wallet API key of the n-th synthetic delegation.
func syntheticKey(n int) []byte {
	return fmt.Appendf(nil, "%s%026d_%s", apiKeyPrefix, n, strings.Repeat("A", 43))
}

// synthesize writes n active delegations with an API key, a policy and two sealed shares
// each, of wallets of dana's with [delegationsOfWallet] of them each.
func (h *house) synthesize(b testing.TB, n int) {
	root, own := mpctest.Ed25519RootSet(b), mpctest.Ed25519DelegateSet(b)
	shares := own.Shares(b, own.Parties...)
	for from := 0; from < n; from += 100 {
		h.put(func(tx *vault.Tx) error {
			var errs []error
			for i := from; i < min(from+100, n); i++ {
				on := syntheticWallet(i)
				if i%delegationsOfWallet == 0 {
					errs = append(errs, store(tx, vault.TypeKey, "key_"+on, &key{V: recordVersion, ID: "key_" + on, Organization: site.acme, Owner: site.dana.id,
						Scheme: root.Scheme, CreatedAt: began, Origin: originInProcess, Status: statusActive, Root: root.ShareSet, Here: []mpc.Party{mpc.Recovery, mpc.Server}}))
					errs = append(errs, store(tx, vault.TypeWallet, on, &wallet{V: recordVersion, ID: on, Organization: site.acme, Key: "key_" + on, Owner: site.dana.id,
						Chain: cluster, Name: "main", Address: "synthetic", Status: statusActive, CreatedAt: began}))
				}
				id, apiKey := fmt.Sprintf("dlg_%06d", i), syntheticKey(i)
				set := own.ShareSet
				set.ID = "set_" + id
				for j, share := range shares {
					errs = append(errs, tx.Put(vault.TypeShare, ShareID(set.ID, own.Parties[j]), bytes.Clone(share)))
				}
				verifier, err := h.verifier(apiKey)
				d := newDelegation("d", on)
				d.Policies[0].ID = "pol_" + id
				rec := &delegationRecord{V: recordVersion, ID: id, Organization: site.acme, Wallet: on, Owner: site.dana.id, DelegatedUser: site.bot,
					Status: statusActive, CreatedAt: began, Policies: d.Policies, Set: set, APIKey: apiKeyID(apiKey), Version: 1}
				errs = append(errs, err, store(tx, vault.TypeDelegation, id, rec),
					store(tx, vault.TypeAPIKey, rec.APIKey, &apiKeyRecord{V: recordVersion, ID: rec.APIKey, Delegation: id, CreatedAt: began, Verifier: verifier, Encrypted: make([]byte, 300)}))
			}
			return errors.Join(errs...)
		})
	}
}

// BenchmarkHundredThousandDelegations starts with 420,000 sealed records: 100,000
// delegations as [house.synthesize] makes them, and a hundredth of that beside it. The
// targets are a start of 1.5 s, 300 MiB and lookups that cost the same.
func BenchmarkHundredThousandDelegations(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			h := newHouse(b)
			h.synthesize(b, n)
			h.reportStarts(b, 20_000, n)
		})
	}
}
