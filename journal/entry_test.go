package journal

import (
	"bytes"
	"strings"
	"testing"

	"github.com/sigild/sigild/vault"
)

func FuzzDecodeEntry(f *testing.F) {
	for _, e := range []Entry{
		{Seq: 2, Kind: KindStarted, TimeMS: 5},
		{Seq: 3, Kind: KindApproved, Organization: "o", RequestID: "r", RequestHash: hashOf("a"), Digest: hashOf("b"), Caller: &Caller{}, Charges: []Charge{{Asset: eth, Amount: "1", What: "fee"}}, ReplayKeys: []string{"k"}},
		{Seq: 4, Kind: KindFailed, ApprovedSeq: 3, Facts: map[string]string{"refund": "true"}, Answer: []byte{1}},
		{Seq: 5, Kind: KindLease, Outcome: leaseGranted, Leases: []Lease{{Of: "approvals", Count: "9"}, {Of: "wallet", ID: "w", Asset: eth, Amount: "9", Count: "8"}}},
	} {
		b, err := e.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"v":1,"seq":2,"time_ms":0,"kind":"started","x":1}`))
	f.Add([]byte(`{"v":1,"seq":2,"seq":3,"time_ms":0,"kind":"started"}`))
	f.Add([]byte(`{"V":1,"seq":2,"time_ms":0,"kind":"started"} `))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := decodeEntry(b)
		if err != nil {
			return
		}
		if again, err := e.encode(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("accepted %q, which is written %q, %v", b, again, err)
		}
	})
}

func TestDecodeEntryIsStrict(t *testing.T) {
	good := `{"v":1,"seq":2,"time_ms":0,"kind":"started"}`
	if _, err := decodeEntry([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"unknown member":   `{"v":1,"seq":2,"time_ms":0,"kind":"started","x":1}`,
		"doubled member":   `{"v":1,"seq":2,"seq":2,"time_ms":0,"kind":"started"}`,
		"other spelling":   `{"v":1,"Seq":2,"time_ms":0,"kind":"started"}`,
		"other order":      `{"seq":2,"v":1,"time_ms":0,"kind":"started"}`,
		"white space":      `{"v":1, "seq":2,"time_ms":0,"kind":"started"}`,
		"empty member":     `{"v":1,"seq":2,"time_ms":0,"kind":"started","user":""}`,
		"something after":  good + `{}`,
		"newline after":    good + "\n",
		"version 2":        `{"v":2,"seq":2,"time_ms":0,"kind":"started"}`,
		"no version":       `{"seq":2,"time_ms":0,"kind":"started"}`,
		"asked of a start": `{"v":1,"seq":2,"time_ms":0,"kind":"started","asked":{"kind":"evm.transaction","chain":"eip155:1","address":"0x","payload":""}}`,
		"asked of nothing": `{"v":1,"seq":2,"time_ms":0,"kind":"refused","asked":{"kind":"","chain":"eip155:1","address":"0x","payload":""}}`,
		"asked too long":   `{"v":1,"seq":2,"time_ms":0,"kind":"refused","asked":{"kind":"evm.transaction","chain":"eip155:1","address":"0x","payload":"` + strings.Repeat("AAAA", MaxAsked/3+1) + `"}}`,
		"unknown kind":     `{"v":1,"seq":2,"time_ms":0,"kind":"begun"}`,
		"null":             `null`,
		"array":            `[]`,
		"nothing":          ``,
	} {
		if _, err := decodeEntry([]byte(bad)); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func FuzzParseCheckpoint(f *testing.F) {
	c := checkpoint{row: vault.JournalHead{Seq: 3}, signature: make([]byte, 64)}
	e := c.entry()
	f.Add(e.Facts[factThrough], e.Facts[factTime], e.Facts[factHash], e.Facts[factSignature])
	f.Add("-1", "x", "00", "zz")
	f.Fuzz(func(t *testing.T, through, ms, hash, sig string) {
		c, err := parseCheckpoint(Entry{Facts: map[string]string{factThrough: through, factTime: ms, factHash: hash, factSignature: sig}})
		if err == nil && len(c.signature) != 64 {
			t.Errorf("signature of %d bytes", len(c.signature))
		}
	})
}

func FuzzParseGenesis(f *testing.F) {
	g := Genesis{ApplianceID: "a", CheckpointKey: &newDevice(f).key.PublicKey}
	e, err := g.entry()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(e.Facts[factAppliance], e.Facts[factStore], e.Facts[factCheckpointKey])
	f.Add("", "zz", "3059")
	f.Fuzz(func(t *testing.T, appliance, store, key string) {
		g, err := parseGenesis(Entry{Facts: map[string]string{factAppliance: appliance, factStore: store, factCheckpointKey: key}})
		if err == nil && (g.ApplianceID == "" || g.CheckpointKey == nil) {
			t.Errorf("accepted an empty genesis: %+v", g)
		}
	})
}
