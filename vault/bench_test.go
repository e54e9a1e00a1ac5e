package vault

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// fill writes n records of size bytes in updates of 500.
func fill(tb testing.TB, v *Vault, n, size int) {
	tb.Helper()
	p := make([]byte, size)
	for i := 0; i < n; {
		err := v.Update(context.Background(), func(tx *Tx) error {
			for range min(500, n-i) {
				if err := tx.Put(TypeWallet, strconv.Itoa(i), p); err != nil {
					return err
				}
				i++
			}
			return nil
		})
		if err != nil {
			tb.Fatal(err)
		}
	}
}

// reportP50 times each call of fn and reports the median.
func reportP50(b *testing.B, fn func()) {
	times := make([]time.Duration, 0, 1<<16)
	for b.Loop() {
		t := time.Now()
		fn()
		times = append(times, time.Since(t))
	}
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Nanoseconds()), "p50-ns")
}

func BenchmarkOpenRecord2K(b *testing.B) {
	v, _ := create(b, stateDir(b))
	fill(b, v, 10_000, 2048)
	i := 0
	reportP50(b, func() {
		i = (i + 7919) % 10_000
		if err := v.With(context.Background(), TypeWallet, strconv.Itoa(i), func([]byte) error { return nil }); err != nil {
			b.Fatal(err)
		}
	})
}

// BenchmarkOpenRecordPerUse2K is the same with a part of a SoftHSM token, behind its worker.
func BenchmarkOpenRecordPerUse2K(b *testing.B) {
	p, _ := token(b)
	v, _ := create(b, stateDir(b))
	if err := v.Connect(p.ID(), p); err != nil {
		b.Fatal(err)
	}
	addPartKey(b, v, p.ID(), p)
	v.UseParts(PartRule{Text: "all", Types: []Type{TypeWallet}, Devices: func(Type, string) []string { return []string{p.ID()} }})
	fill(b, v, 1000, 2048)
	i := 0
	reportP50(b, func() {
		i = (i + 7919) % 1000
		if err := v.With(context.Background(), TypeWallet, strconv.Itoa(i), func([]byte) error { return nil }); err != nil {
			b.Fatal(err)
		}
	})
}

// BenchmarkResident100k is what an open store of 100,000 records adds to the process's
// resident memory, a record, beside an empty one.
func BenchmarkResident100k(b *testing.B) {
	const n = 100_000
	full, pin := create(b, stateDir(b))
	fill(b, full, n, 256)
	if err := full.Close(); err != nil {
		b.Fatal(err)
	}
	empty, emptyPin := create(b, stateDir(b))
	if err := empty.Close(); err != nil {
		b.Fatal(err)
	}
	opened := func(dir string, pin Pin) int {
		v, err := openUnsealed(dir, pin)
		if err != nil {
			b.Fatal(err)
		}
		debug.FreeOSMemory()
		rss := residentBytes(b)
		if err := v.Close(); err != nil {
			b.Fatal(err)
		}
		return rss
	}
	for b.Loop() {
		before := opened(empty.cfg.Dir, emptyPin)
		b.ReportMetric(float64(opened(full.cfg.Dir, pin)-before)/n, "B/record")
	}
}

// residentBytes is the process's RSS.
func residentBytes(b *testing.B) int {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		b.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		b.Fatal(err)
	}
	return pages * os.Getpagesize()
}

func BenchmarkPut(b *testing.B) {
	v, _ := create(b, stateDir(b))
	p := make([]byte, 2048)
	i := 0
	reportP50(b, func() {
		i++
		err := v.Update(context.Background(), func(tx *Tx) error { return tx.Put(TypeWallet, strconv.Itoa(i), p) })
		if err != nil {
			b.Fatal(err)
		}
	})
}

// row is what an update of the signing path writes to the vault: one journal row.
func benchRow(tx *Tx) error {
	h, err := tx.JournalHead()
	if err != nil {
		return err
	}
	body := make([]byte, 700)
	binary.BigEndian.PutUint64(body, h.Seq)
	sum := sha256.Sum256(body)
	return tx.AppendJournal(JournalRow{Seq: h.Seq + 1, Body: body, Hash: sum, MAC: sum})
}

func BenchmarkRows1(b *testing.B)  { benchRows(b, 1) }
func BenchmarkRows64(b *testing.B) { benchRows(b, 64) }

func benchRows(b *testing.B, callers int) {
	v, _ := create(b, stateDir(b))
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range callers {
		wg.Go(func() {
			for next.Add(1) <= int64(b.N) {
				if err := v.Update(context.Background(), benchRow); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

func BenchmarkOpenStore10k(b *testing.B)  { benchOpen(b, 10_000) }
func BenchmarkOpenStore100k(b *testing.B) { benchOpen(b, 100_000) }

func benchOpen(b *testing.B, n int) {
	v, pin := create(b, stateDir(b))
	fill(b, v, n, 256)
	if err := v.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		v, err := openUnsealed(v.cfg.Dir, pin)
		if err != nil {
			b.Fatal(err)
		}
		if err := v.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDerive is what each journal row and each API key pays for its key.
func BenchmarkDerive(b *testing.B) {
	v, _ := create(b, stateDir(b))
	for b.Loop() {
		if err := v.Derive("journal/mac", func([]byte) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTree(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		leaves := make([]leaf, n)
		for i := range leaves {
			leaves[i] = leaf{key: sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i))), version: 1, typ: TypeWallet}
		}
		b.Run(fmt.Sprintf("build-%d", n), func(b *testing.B) {
			for b.Loop() {
				newTree(leaves)
			}
		})
		t, _ := newTree(leaves)
		b.Run(fmt.Sprintf("change-%d", n), func(b *testing.B) {
			i := 0
			for b.Loop() {
				i = (i + 7919) % n
				l := leaves[i]
				l.version++
				t.apply([]leafChange{{leaf: l}})
			}
		})
	}
}

// A new root key for 100,000 records of 256 bytes, while one caller goes on writing:
// the whole time, and how many of its updates were acknowledged meanwhile.
func BenchmarkRewrap100k(b *testing.B) {
	v, _ := create(b, stateDir(b))
	fill(b, v, 100_000, 256)
	for b.Loop() {
		stop, ended := make(chan struct{}), make(chan int)
		go func() {
			n := 0
			for {
				select {
				case <-stop:
					ended <- n
					return
				default:
				}
				if err := v.Update(context.Background(), func(tx *Tx) error { return tx.Put(TypeUser, "u", nil) }); err != nil {
					b.Error(err)
				}
				n++
			}
		}()
		began := time.Now()
		rotate(b, v)
		b.ReportMetric(time.Since(began).Seconds(), "s/rotation")
		close(stop)
		b.ReportMetric(float64(<-ended), "updates-meanwhile")
	}
}
