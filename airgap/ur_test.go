package airgap

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// Made by @ngraveio/bc-ur 1.1.13 and Keystone's registry 0.22.1 and 0.9.5.
const (
	ethRequest = "ur:eth-sign-request/osadtpdagdndcawmgtfrkigrpmndutdnbtkgfssbjnaofwaortaxaaaacsldahtaaddyoeadlecsdwykcsfnykaeykaewkaewkaocybgeehfksamghmkhdwszccndnfzeovekimhaefsfpwpeewppltnmwatisjnihjyhsjnhsjkjegarohhtk"
	ethAnswer  = "ur:eth-signature/otadtpdagdndcawmgtfrkigrpmndutdnbtkgfssbjnaohdfpadadadadadadadadadadadadadadadadadadadadadadadadadadadadadadadadadadadadadadadadadadadadadadadadadadadadadadadadadadadadadadadadadaxiyjkinioinjzieurpliaes"
)

func TestResourcesAreReadInAnyCase(t *testing.T) {
	for _, text := range []string{ethAnswer, strings.ToUpper(ethAnswer), "  " + ethAnswer + "\n"} {
		u, err := ReadMessage([]byte(text))
		if err != nil || u.Type != typeETHAnswer || u.String() != ethAnswer {
			t.Errorf("%.30q: %v, %v", text, u, err)
		}
	}
}

func TestResourcesAreRefused(t *testing.T) {
	sum := []byte(ethAnswer)
	sum[len(sum)-1] ^= 1
	for name, text := range map[string]string{
		"no scheme": ethAnswer[3:], "no body": "ur:eth-signature", "an empty body": "ur:eth-signature/", "another checksum": string(sum),
		"an odd letter": ethAnswer + "a", "no word": "ur:bytes/qqqqqqqqqqqq", "part 0": "ur:bytes/0-2/aeaeaeaeae", "no number": "ur:bytes/x-2/ae",
		"four fields": "ur:bytes/1-2/ae/ae", "an odd type": "ur:By_tes/aeaeaeaeaeae", "a space": "ur: /ae",
	} {
		if _, err := ReadMessage([]byte(text)); !errors.Is(err, ErrForm) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ReadMessage(); !errors.Is(err, ErrForm) {
		t.Errorf("no file: %v", err)
	}
	if _, err := ReadMessage([]byte(ethAnswer), []byte(ethRequest)); !errors.Is(err, ErrForm) {
		t.Errorf("two messages: %v", err)
	}
}

// The transaction "02c0" of the library's own example is none.
func TestWalletsNonsenseIsRefused(t *testing.T) {
	u, err := ReadMessage([]byte(ethRequest))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := RequestOf(u); err == nil || !strings.Contains(err.Error(), "eth-sign-request") {
		t.Errorf("half a transaction: %v", err)
	}
	path, err := encode(map[int]any{1: []any{}})
	if err != nil {
		t.Fatal(err)
	}
	chain := func(n uint64) *uint64 { return &n }
	address := bytes.Repeat([]byte{1}, 20)
	typed := `{"types":{"EIP712Domain":[{"name":"chainId","type":"uint256"}],"M":[{"name":"a","type":"string"}]},"primaryType":"M","domain":{"chainId":1},"message":{"a":"b"}}`
	good := wireETHRequest{Data: []byte(typed), DataType: 2, ChainID: chain(1), Path: path, Address: address}
	try := func(w wireETHRequest) error {
		b, err := encode(w)
		if err != nil {
			t.Fatal(err)
		}
		_, err = RequestOf(UR{Type: typeETHRequest, CBOR: b})
		return err
	}
	if err := try(good); err != nil {
		t.Fatalf("the good one: %v", err)
	}
	for name, change := range map[string]func(*wireETHRequest){
		"a data type we don't know":       func(w *wireETHRequest) { w.DataType = 5 },
		"no address":                      func(w *wireETHRequest) { w.Address = nil },
		"half an address":                 func(w *wireETHRequest) { w.Address = address[:19] },
		"another chain than its data":     func(w *wireETHRequest) { w.ChainID = chain(137) },
		"no data":                         func(w *wireETHRequest) { w.Data = nil },
		"an escape in its origin":         func(w *wireETHRequest) { w.Origin = "\x1b[2J" },
		"a legacy type over a typed one":  func(w *wireETHRequest) { w.DataType, w.Data = 1, []byte{2, 0xc0} },
		"a typed type over a legacy list": func(w *wireETHRequest) { w.DataType, w.Data = 4, []byte{0xc0} },
	} {
		w := good
		change(&w)
		if err := try(w); !errors.Is(err, ErrForm) {
			t.Errorf("%s: %v", name, err)
		}
	}
	sol := wireSOLRequest{Data: []byte{1}, SignType: 1, Address: make([]byte, 32)}
	for name, change := range map[string]func(*wireSOLRequest){
		"a sign type we don't know": func(w *wireSOLRequest) { w.SignType = 3 },
		"no address":                func(w *wireSOLRequest) { w.Address = nil },
		"no data":                   func(w *wireSOLRequest) { w.Data = nil },
	} {
		w := sol
		change(&w)
		b, err := encode(w)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := RequestOf(UR{Type: typeSOLRequest, CBOR: b}); !errors.Is(err, ErrForm) {
			t.Errorf("solana, %s: %v", name, err)
		}
	}
	if _, err := RequestOf(UR{Type: "crypto-psbt", CBOR: []byte{0xa0}}); !errors.Is(err, ErrForm) {
		t.Errorf("a message for somebody else: %v", err)
	}
}

func TestPartsOfOneMessageOnly(t *testing.T) {
	one, two := UR{Type: "bytes", CBOR: bytes.Repeat([]byte{1}, 500)}, UR{Type: "bytes", CBOR: bytes.Repeat([]byte{2}, 500)}
	a, err := one.Parts(20)
	if err != nil {
		t.Fatal(err)
	}
	b, err := two.Parts(20)
	if err != nil {
		t.Fatal(err)
	}
	var c Collector
	for i, p := range a {
		if err := c.Add(p); err != nil {
			t.Fatal(err)
		}
		if err := c.Add(b[i]); !errors.Is(err, ErrForm) {
			t.Fatalf("part %d of another message: %v", i, err)
		}
		if have, need := c.Progress(); need != 5 || have != min(i+1, 5) {
			t.Fatalf("after part %d: %d of %d", i+1, have, need)
		}
	}
	if err := c.Add(one.String()); !errors.Is(err, ErrForm) {
		t.Errorf("whole and in parts: %v", err)
	}
	if err := c.Add(UR{Type: "other", CBOR: []byte{1}}.String()); !errors.Is(err, ErrForm) {
		t.Errorf("another type: %v", err)
	}
	if u, whole, err := c.Message(); err != nil || !whole || !bytes.Equal(u.CBOR, one.CBOR) {
		t.Errorf("joined: %v, %v", whole, err)
	}
	if _, err := ReadMessage([]byte(strings.Join(a[1:5], "\n"))); !errors.Is(err, ErrForm) || !strings.Contains(fmt.Sprint(err), "4 of 5") {
		t.Errorf("a part is missing: %v", err)
	}
	// The mixed ones alone carry it, too.
	if u, err := ReadMessage([]byte(strings.Join(a[5:], "\n"))); err != nil || !bytes.Equal(u.CBOR, one.CBOR) {
		t.Errorf("from mixed parts: %v", err)
	}
	// Sound parts of a message that was never that: the last word is the message's own checksum.
	var liar Collector
	for i := range uint32(2) {
		p, err := encode(wirePart{Number: i + 1, Of: 2, Length: 20, Checksum: 1, Data: make([]byte, 10)})
		if err != nil {
			t.Fatal(err)
		}
		if err := liar.Add(fmt.Sprintf("ur:bytes/%d-2/%s", i+1, minimal(withCRC(p)))); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := liar.Message(); !errors.Is(err, ErrForm) {
		t.Errorf("a message with another checksum: %v", err)
	}
	for name, p := range map[string]wirePart{
		"too many parts": {Number: 1, Of: maxParts + 1, Length: 20, Data: []byte{1}}, "too long": {Number: 1, Of: 1, Length: MaxMessage + 1, Data: []byte{1}},
		"no data": {Number: 1, Of: 1, Length: 1}, "pieces to spare": {Number: 1, Of: 3, Length: 20, Data: make([]byte, 10)}, "another number": {Number: 2, Of: 1, Length: 1, Data: []byte{1}},
	} {
		b, err := encode(p)
		if err != nil {
			t.Fatal(err)
		}
		var c Collector
		if err := c.Add(fmt.Sprintf("ur:bytes/1-%d/%s", p.Of, minimal(withCRC(b)))); !errors.Is(err, ErrForm) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPicturesRoundTrip(t *testing.T) {
	u := UR{Type: typeAnswer, CBOR: bytes.Repeat([]byte{5}, 450)}
	parts, err := u.Parts(5)
	if err != nil {
		t.Fatal(err)
	}
	var files [][]byte
	for _, p := range parts {
		b, err := PictureQR(p)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, b)
		text, err := TerminalQR(p)
		if err != nil || strings.Count(text, "\n") < 20 {
			t.Errorf("in the terminal: %d lines, %v", strings.Count(text, "\n"), err)
		}
	}
	if got, err := ReadMessage(files...); err != nil || !bytes.Equal(got.CBOR, u.CBOR) {
		t.Fatalf("read back: %v", err)
	}
	for name, b := range map[string][]byte{"cut": files[0][:200], "no code": blank(t), "huge": make([]byte, maxPicture+1), "no picture": pngMagic} {
		if _, err := ReadQR(b); !errors.Is(err, ErrForm) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := PictureQR(strings.Repeat("a", 9000)); err == nil {
		t.Error("9000 characters fitted into a QR code")
	}
}
