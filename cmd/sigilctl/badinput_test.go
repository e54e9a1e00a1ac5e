package main_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/client"
)

// rawBytes sends what it is given and keeps what it gets.
type rawBytes struct{}

func (rawBytes) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

func (rawBytes) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

func (rawBytes) Name() string { return "proto" }

const (
	getStatus          = sigilv1.StatusService_GetStatus_FullMethodName
	sign               = sigilv1.SigningService_Sign_FullMethodName
	createOrganization = sigilv1.OrganizationService_CreateOrganization_FullMethodName
)

// Requests that no client of ours would send, to a running daemon: each gets a
// status, and the daemon goes on.
func TestBadRequests(t *testing.T) {
	becomeScratch(t)
	p := newPlace(t)
	d := startFor(t, p)
	app, admin := rawDial(t, p.path("app.sock")), rawDial(t, p.path("admin.sock"))
	good, err := proto.Marshal(&sigilv1.SignRequest{RequestId: "r", WalletId: "w", Payload: &sigilv1.SignRequest_RawDigest{RawDigest: make([]byte, 32)}})
	if err != nil {
		t.Fatal(err)
	}
	unknown := protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1)
	stamped := []string{"sigild-stamp-bin", "{}"}
	key := []string{"sigild-api-key", "sgk_aaaaaaaaaaaaaaaaaaaaaaaaaa_0123456789012345678901234567890123456789012"}

	tests := []struct {
		name    string
		conn    *grpc.ClientConn
		method  string
		message []byte
		md      []string
		code    codes.Code
		reason  string
	}{
		{"a message above 1 MiB", app, sign, make([]byte, 2<<20), key, codes.ResourceExhausted, ""},
		{"a message above the method's bound", app, getStatus, make([]byte, 4<<10), nil, codes.InvalidArgument, "REQUEST_INVALID"},
		{"a field that is cut", app, sign, good[:len(good)-5], key, codes.InvalidArgument, "REQUEST_INVALID"},
		{"noise", app, sign, bytes.Repeat([]byte{0xff}, 300), key, codes.InvalidArgument, "REQUEST_INVALID"},
		{"JSON", app, sign, []byte(`{"request_id":"r"}`), key, codes.InvalidArgument, "REQUEST_INVALID"},
		{"an unknown field", app, getStatus, unknown, nil, codes.InvalidArgument, "REQUEST_INVALID"},
		{"an unknown field beside good ones", app, sign, append(bytes.Clone(good), unknown...), key, codes.InvalidArgument, "REQUEST_INVALID"},
		{"a field twice", app, sign, append(bytes.Clone(good), good...), key, codes.InvalidArgument, "REQUEST_INVALID"},
		{"text that isn't UTF-8", app, sign, append([]byte{0x0a, 1, 0xff}, good...), key, codes.InvalidArgument, "REQUEST_INVALID"},
		{"an empty message", app, sign, nil, key, codes.InvalidArgument, "REQUEST_INVALID"},
		{"no API key", app, sign, good, nil, codes.Unauthenticated, "API_KEY_INVALID"},
		{"two API keys", app, sign, good, append(key, key...), codes.Unauthenticated, "API_KEY_INVALID"},
		{"an unknown API key", app, sign, good, key, codes.Unauthenticated, "API_KEY_INVALID"},
		{"a stamp where none is taken", app, getStatus, nil, stamped, codes.Unauthenticated, "STAMP_INVALID"},
		{"a stamp that is none", admin, createOrganization, nil, stamped, codes.Unauthenticated, "STAMP_INVALID"},
		{"no stamp", admin, createOrganization, nil, nil, codes.Unauthenticated, "STAMP_INVALID"},
		{"a method of the other socket", admin, sign, good, key, codes.PermissionDenied, "CALLER_NOT_ALLOWED"},
		{"an operators' method on the applications' socket", app, createOrganization, nil, nil, codes.PermissionDenied, "CALLER_NOT_ALLOWED"},
		{"an unknown method", app, "/sigil.v1.SigningService/SignAnything", good, key, codes.PermissionDenied, "CALLER_NOT_ALLOWED"},
		{"an unknown service", app, "/sigil.v2.SigningService/Sign", good, key, codes.PermissionDenied, "CALLER_NOT_ALLOWED"},
		{"reflection", app, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", nil, nil, codes.PermissionDenied, "CALLER_NOT_ALLOWED"},
		{"a method without a name", app, "//", nil, nil, codes.PermissionDenied, "CALLER_NOT_ALLOWED"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			var reply []byte
			err := test.conn.Invoke(metadata.AppendToOutgoingContext(ctx, test.md...), test.method, test.message, &reply)
			if status.Code(err) != test.code || client.Reason(err) != test.reason {
				t.Errorf("got %s %q (%v), want %s %q", status.Code(err), client.Reason(err), err, test.code, test.reason)
			}
		})
	}
	t.Run("a compressed message", func(t *testing.T) {
		var reply []byte
		err := app.Invoke(t.Context(), sign, good, &reply, grpc.UseCompressor(gzip.Name))
		if status.Code(err) != codes.Unimplemented {
			t.Errorf("got %v, want UNIMPLEMENTED", err)
		}
	})
	// Beneath gRPC.
	for name, bytes := range map[string][]byte{
		"HTTP/1.1":             []byte("GET / HTTP/1.1\r\nHost: sigild\r\n\r\n"),
		"noise":                []byte(strings.Repeat("\x00\xff", 5000)),
		"half a preface":       []byte("PRI * HTTP/2.0\r\n"),
		"a frame of 16 MiB":    []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\x00\x00\x00\x00\x00\x01"),
		"a truncated frame":    []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x06\x04\x00"),
		"settings on a stream": []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x03"),
	} {
		t.Run(name, func(t *testing.T) {
			if err := shout(p.path("app.sock"), bytes); err != nil {
				t.Error(err)
			}
		})
	}

	// The daemon is as healthy as before.
	if out, err := p.sigilctl("status"); err != nil || !strings.Contains(out, "serving") {
		t.Errorf("status afterwards: %v\n%s", err, out)
	}
	bot := command(p.dir, "bot", "sign", "acks")
	if err := bot.Start(); err != nil {
		t.Fatal(err)
	}
	err = poll(20*time.Second, func(context.Context) error {
		return contains(p.path("acks"), "pay-")
	})
	if err != nil {
		t.Errorf("signing afterwards: %v", err)
	}
	if err := errors.Join(d.stop(), bot.Wait()); err != nil {
		t.Error(err)
	}
	for _, word := range []string{"panic", "INTERNAL", "level=ERROR"} {
		if strings.Contains(d.log.String(), word) {
			t.Errorf("%s is in the log:\n%s", word, d.log)
		}
	}
	if out, err := p.sigilctl("audit", "verify"); err != nil {
		t.Errorf("the journal afterwards: %v\n%s", err, out)
	}
}

func rawDial(t *testing.T, path string) *grpc.ClientConn {
	t.Helper()
	c, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rawBytes{}), grpc.MaxCallSendMsgSize(4<<20)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// shout writes bytes and goes away; whatever is answered, the daemon must not hang on it.
func shout(path string, b []byte) error {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write(b); err != nil {
		return nil // it hung up in the middle, which is an answer
	}
	if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
		return nil
	}
	if _, err := io.Copy(io.Discard, conn); err != nil {
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			return fmt.Errorf("the connection is still open: %w", err)
		}
	}
	return nil
}

func contains(path, text string) error {
	b, err := os.ReadFile(path)
	if err == nil && !bytes.Contains(b, []byte(text)) {
		err = fmt.Errorf("%s has no %q yet", path, text)
	}
	return err
}
