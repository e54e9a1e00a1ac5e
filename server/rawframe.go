package server

import (
	"fmt"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// frame is a request message as it was received: the bytes that stamps are over.
type frame struct {
	bytes []byte
}

// rawCodec is forced on every call. Incoming it hands out the received bytes,
// so that they are hashed and verified before anything looks into them; outgoing
// it is plain protobuf.
type rawCodec struct{}

// Unmarshal copies the message's bytes into a *frame and takes nothing else.
func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	f, ok := v.(*frame)
	if !ok {
		return fmt.Errorf("receiving: a handler asks for %T past the wrapper", v)
	}
	f.bytes = data.Materialize()
	return nil
}

// Marshal encodes a reply.
func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("replying: %T is not a protobuf message", v)
	}
	data, err := proto.Marshal(m)
	if err != nil {
		return nil, err
	}
	return mem.BufferSlice{mem.SliceBuffer(data)}, nil
}

// Name is the content subtype that clients send or leave out.
func (rawCodec) Name() string { return "proto" }
