package vault

import (
	"strings"
	"testing"
)

type thing struct {
	V    int    `json:"v"`
	ID   string `json:"id"`
	Name string `json:"name,omitempty"`
}

func TestObjectsAreDecodedStrictly(t *testing.T) {
	for text, says := range map[string]string{
		``:                        "unexpected end",
		`[]`:                      "cannot unmarshal",
		`{"v":2,"id":"a"}`:        "version 2 is not 1",
		`{"id":"a"}`:              "version 0 is not 1",
		`{"v":1,"id":"a","x":1}`:  "unknown field",
		`{"v":1,"id":1}`:          "cannot unmarshal",
		`{"v":1,"id":"a"}{"v":1}`: "bytes after",
		`{"v":1,"id":"a","v":2}`:  "version 2 is not 1",
		`{"v":1,"id":"a"} x`:      "bytes after",
	} {
		if err := DecodeObject([]byte(text), 1, new(thing)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", text, err, says)
		}
	}
	var got thing
	if err := DecodeObject([]byte(` {"v":1,"id":"a"} `), 1, &got); err != nil || got.ID != "a" {
		t.Errorf("decoded %+v, %v", got, err)
	}
	if _, err := EncodeObject(make(chan int)); err == nil {
		t.Error("a channel was encoded")
	}
}

func FuzzDecodeObject(f *testing.F) {
	f.Add([]byte(`{"v":1,"id":"a","name":"b"}`))
	f.Add([]byte(`{"v":1}{`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var got, again thing
		if DecodeObject(b, 1, &got) != nil {
			return
		}
		text, err := EncodeObject(got)
		if err == nil {
			err = DecodeObject(text, 1, &again)
		}
		if err != nil || got != again {
			t.Errorf("%q is %+v, and again %+v, %v", b, got, again, err)
		}
	})
}

// An object under another id than its own, or that doesn't decode, stops a start.
func TestEachObjectIsWhatItCallsItself(t *testing.T) {
	v, _ := create(t, stateDir(t))
	put := func(id string, rec any) {
		t.Helper()
		if err := v.Update(t.Context(), func(tx *Tx) error { return tx.PutObject(TypeEndpoint, id, rec) }); err != nil {
			t.Fatal(err)
		}
	}
	all := func() (ids []string, err error) {
		err = EachObject(t.Context(), v, TypeEndpoint, 1, func(o *thing) string { ids = append(ids, o.ID); return o.ID })
		return ids, err
	}
	put("a", thing{V: 1, ID: "a"})
	if ids, err := all(); err != nil || len(ids) != 1 || ids[0] != "a" {
		t.Errorf("read %v, %v", ids, err)
	}
	put("b", thing{V: 1, ID: "c"})
	if _, err := all(); err == nil || !strings.Contains(err.Error(), "record b calls itself c") {
		t.Errorf("under another id: %v", err)
	}
	put("b", thing{V: 2, ID: "b"})
	if _, err := all(); err == nil || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("of another version: %v", err)
	}
}
