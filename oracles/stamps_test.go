package oracles

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// Stamps for other vendors' APIs have the form that the vendors' own libraries give
// them, and verify with two others. stamping holds itself to the same file.
func TestStampsHaveTheVendorsForm(t *testing.T) {
	text, err := os.ReadFile("../stamping/testdata/stamps.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	var rows []map[string]string
	for line := range bytes.Lines(text) {
		var row map[string]string
		if err := json.Unmarshal(line, &row); err != nil {
			t.Fatal(err)
		}
		rows = append(rows, row)
	}
	accept(t, "stamps.mjs", rows)
	for i := range rows { // another body, another challenge: refused
		rows[i] = map[string]string{"id": rows[i]["id"], "private": rows[i]["private"], "public": rows[i]["public"], "account": rows[i]["account"], "value": rows[i]["value"],
			"body": strings.Replace(rows[i]["body"], "{", "{ ", 1), "challenge": strings.Replace(rows[i]["challenge"], "M", "N", 1)}
	}
	answers, accepted := ask(t, "stamps.mjs", rows)
	for i, a := range answers {
		if a["ok"] == true || accepted {
			t.Errorf("%s is accepted over other bytes", rows[i]["id"])
		}
	}
}
