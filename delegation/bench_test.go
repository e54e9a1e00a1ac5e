package delegation

import (
	"bytes"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/mpctest"
	"github.com/sigild/sigild/vault"
)

// BenchmarkStart10000Wallets opens a store with 10,000 synthetic Ed25519 wallets:
// key, wallet and two shares each, 40,000 sealed records. It is what a daemon does
// between its start and READY but for config and sockets: vault, unsealing through
// SoftHSM, journal, delegation state. RSS is of this test process, after.
func BenchmarkStart10000Wallets(b *testing.B) {
	h := newHouse(b)
	set := mpctest.Ed25519RootSet(b)
	here := []mpc.Party{mpc.Recovery, mpc.Server}
	shares := set.Shares(b, here...)
	for chunk := range 100 {
		h.put(func(tx *vault.Tx) error {
			for i := range 100 {
				id := fmt.Sprintf("wal_%05d", chunk*100+i)
				for j, share := range shares {
					if err := tx.Put(vault.TypeShare, ShareID(id, here[j]), bytes.Clone(share)); err != nil {
						return err
					}
				}
				k := &key{V: recordVersion, ID: "key_" + id, Organization: site.acme, Owner: site.dana.id, Scheme: set.Scheme, CreatedAt: began,
					Origin: "in_process", Status: statusActive, Root: set.ShareSet, Here: here}
				w := &wallet{V: recordVersion, ID: id, Organization: site.acme, Key: k.ID, Owner: site.dana.id, Chain: cluster, Name: "main",
					Address: "synthetic", Status: statusActive, CreatedAt: began}
				if err := store(tx, vault.TypeKey, k.ID, k); err != nil {
					return err
				}
				if err := store(tx, vault.TypeWallet, id, w); err != nil {
					return err
				}
			}
			return nil
		})
	}
	var took []time.Duration
	for b.Loop() {
		h.Service.Close()
		if err := h.cfg.Vault.Close(); err != nil {
			b.Fatal(err)
		}
		start := time.Now()
		h.openVault()
		h.open()
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Milliseconds()), "ms/start-p50")
	debug.FreeOSMemory()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	var kb float64
	for line := range bytes.Lines(status) {
		if _, err := fmt.Sscanf(string(line), "VmRSS: %f kB", &kb); err == nil {
			break
		}
	}
	b.ReportMetric(kb/1024, "MiB-RSS")
}
