package gg18_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/big"
	"strings"
	"testing"

	"github.com/bnb-chain/tss-lib/v2/common"
	"github.com/bnb-chain/tss-lib/v2/crypto"
	"github.com/bnb-chain/tss-lib/v2/tss"
	"go.uber.org/zap/zapcore"

	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/engines/gg18"
	"github.com/sigild/sigild/mpc/mpctest"
)

func pointOf(t *testing.T, x, y *big.Int) *crypto.ECPoint {
	t.Helper()
	p, err := crypto.NewECPoint(tss.Edwards(), x, y)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestTSSLibLogsNothing(t *testing.T) {
	core := common.Logger.Desugar().Core()
	for l := zapcore.DebugLevel; l <= zapcore.FatalLevel; l++ {
		if core.Enabled(l) {
			t.Errorf("tss-lib logs at level %v", l)
		}
	}
}

// The derivation of party keys is for ever: shares hold them.
func TestPartyKeyIsPinned(t *testing.T) {
	// Computed with Python's hashlib.
	for _, tc := range []struct{ curve, want string }{
		{"secp256k1", "e20ebcf7e3bd154d144e480bb244c5b2b7e2859d5ab70adf38a64026d2e1e3d5"},
		{"ed25519", "020ebcf7e3bd154d144e480bb244c5b193b0db70712c772667a4d4b5bd704cdf"},
	} {
		ec, _ := tss.GetCurveByName(tss.CurveName(tc.curve))
		got := hex.EncodeToString(gg18.PartyKey(ec, mpc.Member{SetID: "set-1", Party: mpc.Server}).Bytes())
		if got != tc.want {
			t.Errorf("%s: party key %s, want %s", tc.curve, got, tc.want)
		}
	}
}

func TestRosterRefusesTheSameKeyTwice(t *testing.T) {
	s, d := members("set-1")
	if _, err := gg18.NewRoster(tss.S256(), []mpc.Member{s, d, s}); err == nil {
		t.Error("a member twice in one committee was taken")
	}
	if _, err := gg18.NewRoster(tss.S256(), []mpc.Member{s, d}, []mpc.Member{d}); err == nil {
		t.Error("overlapping committees were taken")
	}
}

// edit changes a field of a JSON object by its path and keeps all else.
func edit(t *testing.T, body []byte, change func(m map[string]any)) []byte {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var m map[string]any
	if err := d.Decode(&m); err != nil {
		t.Fatal(err)
	}
	change(m)
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDecodeECDSARefusesNumbersThatDoNotFit(t *testing.T) {
	set := mpctest.ECDSADelegateSet(t)
	good := set.Body(t, mpc.Server)
	c := set.Committee()
	own := func(m map[string]any) int {
		for i, k := range m["Ks"].([]any) {
			if k == m["ShareID"] {
				return i
			}
		}
		t.Fatal("no own key")
		return 0
	}
	list := func(m map[string]any, name string) []any { return m[name].([]any) }
	sk := func(m map[string]any) map[string]any { return m["PaillierSK"].(map[string]any) }
	for name, tc := range map[string]struct {
		change func(m map[string]any)
		want   string
	}{
		"secret zero":      {func(m map[string]any) { m["Xi"] = json.Number("0") }, "secret is out of range"},
		"secret too big":   {func(m map[string]any) { m["Xi"] = json.Number(tss.S256().Params().N.String()) }, "secret is out of range"},
		"another secret":   {func(m map[string]any) { m["Xi"] = json.Number("7") }, "secret does not fit"},
		"no secret":        {func(m map[string]any) { m["Xi"] = nil }, "secret is out of range"},
		"other share id":   {func(m map[string]any) { m["ShareID"] = list(m, "Ks")[1-own(m)] }, "another party"},
		"other party keys": {func(m map[string]any) { list(m, "Ks")[0] = json.Number("5") }, "not of this set"},
		"fewer parties":    {func(m map[string]any) { m["Ks"] = list(m, "Ks")[:1] }, "another number of parties"},
		"fewer moduli":     {func(m map[string]any) { m["NTildej"] = list(m, "NTildej")[:1] }, "another number of parties"},
		"no point":         {func(m map[string]any) { list(m, "BigXj")[0] = nil }, "not on the curve"},
		"swapped points":   {func(m map[string]any) { p := list(m, "BigXj"); p[0], p[1] = p[1], p[0] }, "secret does not fit"},
		"another key":      {func(m map[string]any) { m["ECDSAPub"] = list(m, "BigXj")[0] }, "another public key"},
		"small modulus":    {func(m map[string]any) { list(m, "NTildej")[1-own(m)] = json.Number("15") }, "2048 bits"},
		"no Paillier key":  {func(m map[string]any) { list(m, "PaillierPKs")[1-own(m)] = nil }, "2048 bits"},
		"h1 one":           {func(m map[string]any) { list(m, "H1j")[1-own(m)] = json.Number("1") }, "out of range"},
		"h1 is h2":         {func(m map[string]any) { i := 1 - own(m); list(m, "H1j")[i] = list(m, "H2j")[i] }, "out of range"},
		"own prime":        {func(m map[string]any) { sk(m)["P"] = json.Number("11") }, "own Paillier modulus"},
		"negative prime": {func(m map[string]any) {
			sk(m)["P"], sk(m)["Q"] = "-"+sk(m)["P"].(json.Number), "-"+sk(m)["Q"].(json.Number)
		}, "not positive"},
		"own lambda":     {func(m map[string]any) { sk(m)["LambdaN"] = json.Number("11") }, "own Paillier key"},
		"own NTilde":     {func(m map[string]any) { m["P"] = json.Number("11") }, "own NTilde"},
		"own h1":         {func(m map[string]any) { m["H1i"] = json.Number("11") }, "own h1"},
		"no alpha":       {func(m map[string]any) { m["Alpha"] = nil }, "missing"},
		"order of field": {func(map[string]any) {}, "canonical"}, // a map sorts them by name
	} {
		_, err := gg18.DecodeECDSA(edit(t, good, tc.change), c, mpc.Server, set.PublicKey)
		if !errors.Is(err, mpc.ErrShare) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want ErrShare with %q", name, err, tc.want)
		}
	}
	if _, err := gg18.DecodeECDSA(good, c, mpc.Delegate, set.PublicKey); !errors.Is(err, mpc.ErrShare) {
		t.Errorf("as the delegate's: error %v, want ErrShare", err)
	}
	if _, err := gg18.DecodeECDSA(append(good[:len(good):len(good)], ' '), c, mpc.Server, set.PublicKey); !errors.Is(err, mpc.ErrShare) {
		t.Errorf("with a space: error %v, want ErrShare", err)
	}
}

func TestDecodeEdDSARefusesNumbersThatDoNotFit(t *testing.T) {
	set := mpctest.Ed25519DelegateSet(t)
	good := set.Body(t, mpc.Server)
	for name, tc := range map[string]struct {
		change func(m map[string]any)
		want   string
	}{
		"another secret": {func(m map[string]any) { m["Xi"] = json.Number("7") }, "secret does not fit"},
		"secret too big": {func(m map[string]any) { m["Xi"] = json.Number(tss.Edwards().Params().N.String()) }, "secret is out of range"},
		"another key":    {func(m map[string]any) { m["EDDSAPub"] = m["BigXj"].([]any)[0] }, "another public key"},
		"another curve": {func(m map[string]any) {
			g := tss.S256().Params()
			m["EDDSAPub"] = map[string]any{"Curve": "secp256k1", "Coords": []any{json.Number(g.Gx.String()), json.Number(g.Gy.String())}}
		}, "not on the curve"},
		"unknown field": {func(m map[string]any) { m["More"] = 1 }, "canonical"},
	} {
		_, err := gg18.DecodeEdDSA(edit(t, good, tc.change), set.Committee(), mpc.Server, set.PublicKey)
		if !errors.Is(err, mpc.ErrShare) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want ErrShare with %q", name, err, tc.want)
		}
	}
}

func TestErrorsDoNotQuoteTheBody(t *testing.T) {
	set := mpctest.Ed25519DelegateSet(t)
	good := set.Body(t, mpc.Server)
	_, err := gg18.DecodeEdDSA(bytes.Replace(good, []byte(`"Xi":`), []byte(`"Xi":"`), 1), set.Committee(), mpc.Server, set.PublicKey)
	if err == nil {
		t.Fatal("decoded")
	}
	for i := bytes.Index(good, []byte(`"Xi":`)) + 5; good[i+8] >= '0' && good[i+8] <= '9'; i++ {
		if strings.Contains(err.Error(), string(good[i:i+8])) {
			t.Fatalf("error %q quotes the secret", err)
		}
	}
}

func FuzzDecodeEdDSA(f *testing.F) {
	set := mpctest.Ed25519DelegateSet(f)
	f.Add(set.Body(f, mpc.Server))
	f.Add([]byte(`{"Xi":1,"BigXj":[{"Curve":"ed25519","Coords":[null,null]}]}`))
	f.Add([]byte(`{}`))
	good := set.Body(f, mpc.Server)
	f.Fuzz(func(t *testing.T, b []byte) {
		_, err := gg18.DecodeEdDSA(b, set.Committee(), mpc.Server, set.PublicKey)
		if err == nil && !bytes.Equal(b, good) {
			// Other parties' points are not pinned by the header; the secret is.
			if !bytes.Contains(b, good[:bytes.Index(good, []byte(`,"Ks"`))]) {
				t.Errorf("decoded %q", b)
			}
		}
		if err != nil && !errors.Is(err, mpc.ErrShare) {
			t.Errorf("error %v, want ErrShare", err)
		}
	})
}

func FuzzDecodeECDSA(f *testing.F) {
	set := mpctest.ECDSADelegateSet(f)
	f.Add(set.Body(f, mpc.Server))
	f.Add([]byte(`{"PaillierSK":null,"PaillierPKs":[null,null]}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := gg18.DecodeECDSA(b, set.Committee(), mpc.Server, set.PublicKey); err != nil && !errors.Is(err, mpc.ErrShare) {
			t.Errorf("error %v, want ErrShare", err)
		}
	})
}
