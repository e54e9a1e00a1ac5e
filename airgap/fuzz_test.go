package airgap

import (
	"bytes"
	"crypto/ed25519"
	"image"
	"image/png"
	"testing"
)

func blank(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, 100, 100))); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Whatever is read as a message can be written again as the same one, and nothing panics.
func FuzzReadMessage(f *testing.F) {
	r := memoRequest(make([]byte, 32), "hi")
	b, err := r.Encode()
	if err != nil {
		f.Fatal(err)
	}
	parts, err := r.Message().Parts(7)
	if err != nil {
		f.Fatal(err)
	}
	reply, err := r.Reply(make([]byte, 64), "app_1", 1)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, []byte{})
	f.Add(reply.CBOR, []byte{})
	f.Add([]byte(ethRequest), []byte(ethAnswer))
	f.Add([]byte(parts[0]), []byte(parts[1]+"\n"+parts[6]))
	f.Fuzz(func(t *testing.T, one, two []byte) {
		files := [][]byte{one}
		if len(two) > 0 {
			files = append(files, two)
		}
		u, err := ReadMessage(files...)
		if err != nil {
			return
		}
		if again, err := ReadMessage([]byte(u.String())); err != nil || again.Type != u.Type || !bytes.Equal(again.CBOR, u.CBOR) {
			t.Fatalf("%s read again: %v", u, err)
		}
		req, err := RequestOf(u)
		if err != nil {
			return
		}
		if !printable(req.Note) || !printable(req.Signer.Address+req.Signer.Chain+string(req.Kind)) || !plainName(req.ID) {
			t.Fatalf("unprintable request %+v", req)
		}
		if d, err := req.Decode(); err == nil && !printable(d.Summary) {
			t.Fatalf("unprintable summary %q", d.Summary)
		}
	})
}

func FuzzParseReply(f *testing.F) {
	// A key of a generator's: under the all-zero one anybody signs.
	public := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)).Public().(ed25519.PublicKey)
	ours := memoRequest(public, "hi")
	if _, err := ours.Encode(); err != nil {
		f.Fatal(err)
	}
	eth := &Request{ID: "9b1deb4d3b7d4bad9bdd2b0d7b3dcb6d", Kind: "evm.message", Payload: []byte("hi"), made: formERC4527}
	sol := &Request{ID: "a", Kind: "solana.message", Payload: []byte("hi"), made: formSolana}
	reply, err := ours.Reply(make([]byte, 64), "app_1", 1)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(reply.CBOR)
	reply, err = eth.Reply(make([]byte, 65), "", 0)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(reply.CBOR)
	f.Fuzz(func(t *testing.T, b []byte) {
		for kind, r := range map[string]*Request{typeAnswer: ours, typeETHAnswer: eth, typeSOLAnswer: sol} {
			a, err := r.ParseReply(UR{Type: kind, CBOR: b})
			if err != nil {
				continue
			}
			// Nobody made a key for these: nothing attaches.
			if _, _, err := Attach(r, a); err == nil {
				t.Fatalf("%x attached to %+v", b, r)
			}
		}
	})
}

func FuzzReadQR(f *testing.F) {
	b, err := PictureQR(ethAnswer)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(blank(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		if text, err := ReadQR(b); err == nil && text == "" {
			t.Fatal("an empty code")
		}
	})
}
