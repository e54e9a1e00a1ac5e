package stamping

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"github.com/sigild/sigild/signing"
	"github.com/sigild/sigild/stamping/dfns"
	"github.com/sigild/sigild/stamping/turnkey"
)

// vector is a line of testdata/stamps.jsonl, which oracles/stamps.mjs holds to the
// vendors' own libraries. The private key is SHA-256 of "sigild stamp vector": public.
type vector struct {
	ID        string `json:"id"`
	Private   string `json:"private"`
	Public    string `json:"public"`
	Body      string `json:"body,omitempty"`
	Challenge string `json:"challenge,omitempty"`
	Account   string `json:"account"`
	Value     string `json:"value"`
}

func TestStampsAreTheVectors(t *testing.T) {
	raw := sha256.Sum256([]byte("sigild stamp vector"))
	public, err := publicOf(raw[:])
	if err != nil {
		t.Fatal(err)
	}
	rows := []vector{
		{ID: "turnkey", Body: `{"payload": "hello from TKHQ"}`, Account: turnkeyOrg},
		{ID: "turnkey-transaction", Body: `{"type":"ACTIVITY_TYPE_SIGN_TRANSACTION_V2","timestampMs":"1746736509954","organizationId":"` + turnkeyOrg + `","parameters":{"signWith":"` + address + `","unsignedTransaction":"02c0","type":"TRANSACTION_TYPE_ETHEREUM"}}`, Account: turnkeyOrg},
		{ID: "dfns", Challenge: challenge, Account: "cr-6uunn-bm6ja-f6rmod5kqrk5rbel"},
	}
	var got bytes.Buffer
	for _, row := range rows {
		r := record{Vendor: Turnkey, Public: public, Account: row.Account}
		if row.Challenge != "" {
			r.Vendor = Dfns
		}
		message, err := r.signed(signing.VendorBody{Body: []byte(row.Body), Challenge: row.Challenge})
		if err != nil {
			t.Fatal(err)
		}
		signature, err := sign(raw[:], message)
		if err != nil {
			t.Fatal(err)
		}
		if row.Challenge == "" {
			row.Value, err = turnkey.Stamp(public, signature)
		} else {
			var text []byte
			text, err = dfns.Assertion(row.Account, message, signature)
			row.Value = string(text)
		}
		if err != nil {
			t.Fatal(err)
		}
		row.Private, row.Public = hex.EncodeToString(raw[:]), hex.EncodeToString(public)
		line, err := json.Marshal(row)
		if err != nil {
			t.Fatal(err)
		}
		got.Write(append(line, '\n'))
	}
	want, err := os.ReadFile("testdata/stamps.jsonl")
	if err != nil || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("testdata/stamps.jsonl is not (%v)\n%s", err, got.Bytes())
	}
}
