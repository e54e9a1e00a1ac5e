package server

import (
	"bytes"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/typepb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
)

func ptr[T any](v T) *T { return &v }

func full() *sigilv1.CreateDelegationRequest {
	return &sigilv1.CreateDelegationRequest{
		RequestId: "r", OrganizationId: "org_a", WalletId: "wal_a", DelegatedUserId: "usr_a", ApiKeyRecipient: "age1",
		ExpiresAt: &timestamppb.Timestamp{Seconds: 1763700000, Nanos: 5},
		Policies:  []*sigilv1.Policy{{Name: "p", Effect: sigilv1.PolicyEffect_POLICY_EFFECT_ALLOW, Condition: ptr("true")}},
		Limits:    []*sigilv1.Limit{{Name: "l", Asset: "eip155:1/slip44:60", MaxAmount: "1", WindowSeconds: ptr(uint32(60)), IncludeFees: true}},
	}
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// lenField is a field of wire type 2.
func lenField(n protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), value)
}

func varintField(n protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.VarintType), v)
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func TestStrictUnmarshalTakesWhatIsWellFormed(t *testing.T) {
	for _, want := range []proto.Message{
		full(), &sigilv1.GetStatusRequest{}, &sigilv1.SignRequest{RequestId: "r", Payload: &sigilv1.SignRequest_RawDigest{RawDigest: []byte{1}}},
		&typepb.Field{Number: -1, Kind: typepb.Field_TYPE_BOOL, OneofIndex: 7, Packed: true}, // a negative int32, an enum
		wrapperspb.Double(1.5), wrapperspb.Float(1.5), wrapperspb.UInt64(1 << 63), wrapperspb.Int64(-1),
	} {
		got := want.ProtoReflect().New().Interface()
		if err := strictUnmarshal(marshal(t, want), got); err != nil {
			t.Errorf("%v: %v", want, err)
		} else if !proto.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	// Fields in another order are well formed too.
	var got sigilv1.GetWalletRequest
	if err := strictUnmarshal(join(lenField(2, []byte("wal_a")), lenField(1, []byte("org_a"))), &got); err != nil || got.GetWalletId() != "wal_a" {
		t.Errorf("other order: %v, %v", &got, err)
	}
}

func TestStrictUnmarshalRefuses(t *testing.T) {
	good := marshal(t, full())
	delegation := func() proto.Message { return &sigilv1.CreateDelegationRequest{} }
	sign := func() proto.Message { return &sigilv1.SignRequest{} }
	deep := []byte{}
	for range maxNesting + 1 { // Value.list_value.values[0]: two messages a turn
		deep = lenField(6, lenField(1, deep))
	}
	rows := []struct {
		name, want string
		into       proto.Message
		data       []byte
	}{
		{"unknown field", "unknown field 99", delegation(), join(good, varintField(99, 1))},
		{"unknown field in a list of messages", "Policy: unknown field 99", delegation(), join(good, lenField(7, varintField(99, 1)))},
		{"unknown field two deep", "Timestamp: unknown field 3", delegation(), lenField(6, varintField(3, 1))},
		{"string twice", "organization_id: appears twice", delegation(), join(lenField(2, []byte("org_a")), lenField(2, []byte("org_b")))},
		{"message twice", "expires_at: appears twice", delegation(), join(good, lenField(6, nil))},
		{"scalar twice in a message", "include_fees: appears twice", delegation(), lenField(8, join(varintField(5, 1), varintField(5, 0)))},
		{"two members of a oneof", "payload: more than one member", sign(), join(lenField(3, []byte{1}), lenField(4, []byte{2}))},
		{"wrong wire type", "wire type 0, want 2", delegation(), varintField(1, 1)},
		{"fixed for varint", "wire type 5, want 0", delegation(), lenField(8, protowire.AppendFixed32(protowire.AppendTag(nil, 4, protowire.Fixed32Type), 1))},
		{"group", "wire type 3, want 2", delegation(), []byte{7<<3 | 3, 7<<3 | 4}},
		{"end of a group", "cut short or not protobuf", delegation(), []byte{7<<3 | 4}},
		{"enum without a name", "effect: 9 is out of range", delegation(), lenField(7, varintField(2, 9))},
		{"enum cut to 32 bits", "out of range", delegation(), lenField(7, varintField(2, 1<<32|1))},
		{"uint32 too large", "window_seconds: 4294967356 is out of range", delegation(), lenField(8, varintField(4, 1<<32+60))},
		{"bool of two", "include_fees: 2 is out of range", delegation(), lenField(8, varintField(5, 2))},
		{"int32 too large", "out of range", &timestamppb.Timestamp{}, varintField(2, 1<<31)},
		{"int32 far below", "out of range", &timestamppb.Timestamp{}, varintField(2, 1<<63)},
		{"invalid UTF-8", "not a valid message", delegation(), lenField(1, []byte{0xff, 0xfe})},
		{"cut in a tag", "cut short", delegation(), []byte{0x80}},
		{"cut in a value", "cut short", delegation(), good[:len(good)-1]},
		{"length beyond the end", "cut short", delegation(), []byte{0x0a, 0x7f, 'x'}},
		{"cut inside", "Policy.name: cut short", delegation(), lenField(7, []byte{0x0a, 0x05, 'x'})},
		{"field number zero", "cut short or not protobuf", delegation(), []byte{0x00, 0x00}},
		{"varint without end", "cut short", delegation(), join([]byte{8 << 3}, bytes.Repeat([]byte{0xff}, 11))},
		{"map", "maps are not taken", &structpb.Struct{}, marshal(t, &structpb.Struct{Fields: map[string]*structpb.Value{"a": structpb.NewNullValue()}})},
		{"nested too deep", "nest deeper", &structpb.Value{}, deep},
	}
	for _, row := range rows {
		err := strictUnmarshal(row.data, row.into)
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v, want error with %q", row.name, err, row.want)
		}
	}
}

// Packed lists of numbers are in no message of ours yet; protobuf's own descriptor has one.
func TestStrictUnmarshalReadsPackedLists(t *testing.T) {
	location := func() proto.Message { return &descriptorpb.SourceCodeInfo_Location{} }
	packed := func(values ...uint64) []byte {
		var b []byte
		for _, v := range values {
			b = protowire.AppendVarint(b, v)
		}
		return lenField(1, b)
	}
	for name, data := range map[string][]byte{"packed": packed(1, 2, 3), "one by one": join(varintField(1, 1), varintField(1, 2))} {
		if err := strictUnmarshal(data, location()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for want, data := range map[string][]byte{"out of range": packed(1, 1<<40), "cut short": lenField(1, []byte{0x80})} {
		if err := strictUnmarshal(data, location()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want error with %q", err, want)
		}
	}
}

// Groups are proto2's; a message that had one could not be checked, so it is refused.
func TestStrictUnmarshalRefusesGroupFields(t *testing.T) {
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: ptr("old.proto"), Syntax: ptr("proto2"),
		MessageType: []*descriptorpb.DescriptorProto{{
			Name:       ptr("Old"),
			NestedType: []*descriptorpb.DescriptorProto{{Name: ptr("Part")}},
			Field: []*descriptorpb.FieldDescriptorProto{{
				Name: ptr("part"), Number: ptr(int32(1)), TypeName: ptr(".Old.Part"),
				Type: descriptorpb.FieldDescriptorProto_TYPE_GROUP.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
			}},
		}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	m := dynamicpb.NewMessage(file.Messages().ByName("Old"))
	if err := strictUnmarshal([]byte{1<<3 | 3, 1<<3 | 4}, m); err == nil || !strings.Contains(err.Error(), "group are not taken") {
		t.Errorf("got %v, want a refusal of groups", err)
	}
}

func FuzzStrictUnmarshal(f *testing.F) {
	f.Add(marshal(f, full()))
	f.Add(marshal(f, &sigilv1.SignRequest{RequestId: "r", WalletId: "w", Payload: &sigilv1.SignRequest_SolanaMessage{SolanaMessage: []byte{1, 2}}}))
	f.Add(join(lenField(7, varintField(2, 1)), lenField(8, varintField(4, 60))))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, m := range []proto.Message{
			&sigilv1.CreateDelegationRequest{}, &sigilv1.SignRequest{}, &sigilv1.CreateOrganizationRequest{},
			&sigilv1.CreateUserRequest{}, &structpb.Value{}, &typepb.Field{},
		} {
			if strictUnmarshal(data, m) != nil {
				continue
			}
			// What was taken says all that the bytes say: encoded again, it decodes to the same, and nothing is left over.
			again := m.ProtoReflect().New().Interface()
			if err := strictUnmarshal(marshal(t, m), again); err != nil {
				t.Fatalf("%s: decoded, encoded, refused: %v", m.ProtoReflect().Descriptor().Name(), err)
			}
			if !bytes.Equal(marshal(t, again), marshal(t, m)) {
				t.Fatalf("got %v, want %v", again, m)
			}
			if n := unknownBytes(m.ProtoReflect()); n > 0 {
				t.Fatalf("%d unknown bytes were let through", n)
			}
		}
	})
}

// unknownBytes counts what protobuf kept without understanding it.
func unknownBytes(m protoreflect.Message) int {
	n := len(m.GetUnknown())
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Kind() != protoreflect.MessageKind || f.IsMap():
		case f.IsList():
			for i := range v.List().Len() {
				n += unknownBytes(v.List().Get(i).Message())
			}
		default:
			n += unknownBytes(v.Message())
		}
		return true
	})
	return n
}
