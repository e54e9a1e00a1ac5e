package main_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/internal/testcost"
)

// BenchmarkSignEd25519OverTheSocket is a Solana transfer from the client's call to its
// signature: the daemon with its token, all ten steps, one caller. Processor time is that
// of client, daemon and token worker. The target is a median of 4 ms.
func BenchmarkSignEd25519OverTheSocket(b *testing.B) {
	becomeScratch(b)
	p := newPlace(b)
	bot, err := readBot(p.path("bot.json"))
	if err != nil {
		b.Fatal(err)
	}
	d := startFor(b, p)
	c := benchClient(b, p).WithAPIKey(bot.APIKey)
	n := 0
	pay := func() {
		n++
		if _, err := bot.ask(c, acknowledged{ID: fmt.Sprint("bench-", n), Lamports: uint64(n)}); err != nil {
			b.Fatal(err)
		}
	}
	for range 20 {
		pay()
	}
	m, start := testcost.New(b, d.cmd.Process.Pid), time.Now()
	for range 500 {
		m.Time(pay)
	}
	m.Report(time.Since(start))
	b.ReportMetric(0, "ns/op") // of 500, whatever b.N is
}

// BenchmarkSignECDSAOverTheSocket is an EVM transfer likewise, signed with presignatures
// out of a pool that was filled before: the median of a burst that the pool serves. The
// target is 10 ms. Beside it is the rate that is sustained once the pool is empty.
func BenchmarkSignECDSAOverTheSocket(b *testing.B) {
	const pool = 16
	becomeScratch(b)
	p := newPlace(b)
	bot, err := readBot(p.path("bot.json"))
	if err != nil {
		b.Fatal(err)
	}
	p.edit(b, "presignatures: {max: 2, cpu: 1}", fmt.Sprintf("presignatures: {max: %d, cpu: 1}", pool))
	wallet, _ := p.etherWallet(b, bot)
	d := startFor(b, p)
	w := p.delegateEther(b, bot, wallet)
	p.must(b, bot, "key set", "--wallet", wallet, "--presignatures=true", "--key", "owner.key")
	c := benchClient(b, p).WithAPIKey(w.APIKey).Signing()
	nonce := uint64(0)
	pay := func() {
		nonce++
		_, err := c.Sign(b.Context(), &sigilv1.SignRequest{
			RequestId: fmt.Sprint("bench-", nonce), WalletId: wallet, Payload: &sigilv1.SignRequest_EvmTransaction{EvmTransaction: sendEther(b, nonce, 7)},
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	full := func(context.Context) error {
		if out := p.must(b, bot, "wallet show", "--wallet", wallet, "--key", "owner.key"); !strings.Contains(out, fmt.Sprintf("on, %d ready", pool)) {
			return fmt.Errorf("wallet show says\n%s", out)
		}
		return nil
	}
	if err := poll(5*time.Minute, full); err != nil {
		b.Fatal(err)
	}
	m := testcost.New(b, d.cmd.Process.Pid)
	for range pool {
		m.Time(pay)
	}
	m.Report(0)
	start := time.Now()
	for range 2 * pool {
		pay()
	}
	b.ReportMetric(2*pool/time.Since(start).Seconds(), "sustained-op/s")
	b.ReportMetric(0, "ns/op") // of the pool, whatever b.N is
}

func benchClient(b *testing.B, p place) *client.Client {
	b.Helper()
	c, err := client.Dial(p.path("app.sock"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close() })
	return c
}
