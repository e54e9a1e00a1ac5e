package server

import (
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/chains"
)

// Every payload of the API reaches the decoder of its own kind.
func TestEveryPayloadHasItsKind(t *testing.T) {
	seen := map[chains.Kind]protoreflect.Name{}
	fields := (&sigilv1.SignRequest{}).ProtoReflect().Descriptor().Oneofs().ByName("payload").Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		var r sigilv1.SignRequest
		r.ProtoReflect().Set(f, protoreflect.ValueOfBytes([]byte(f.Name())))
		kind, payload := payloadOf(&r)
		if kind == "" || string(payload) != string(f.Name()) || seen[kind] != "" {
			t.Errorf("%s is of kind %q with payload %q, and so is %q", f.Name(), kind, payload, seen[kind])
		}
		seen[kind] = f.Name()
	}
	if kind, _ := payloadOf(&sigilv1.SignRequest{}); kind != "" {
		t.Errorf("nothing is of kind %s", kind)
	}
	if len(seen) < 8 {
		t.Errorf("only %d payloads", len(seen))
	}
}
