package server

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/refusal"
)

// request is what the wrapper found out about a call, for the handlers in this
// package. Nothing in it comes from the message.
type request struct {
	caller Caller
	at     socket
	// method is the full gRPC method that the stamps are bound to.
	method string
	// hash is SHA-256 of the message as it was received.
	hash [32]byte
	// message is the message itself, and stamps those over it that were verified, as
	// they came.
	message []byte
	stamps  [][]byte
	// organizationID is the one the stamps name; "" for operators, and without stamps.
	organizationID string
	// credentials are those whose stamps were verified, each once.
	credentials []credential.PublicKey
	// apiKey is the wallet API key, of the right form and not yet judged. It is
	// wiped when the call ends.
	apiKey []byte
}

type requestKey struct{}

// requestFrom returns the wrapper's findings. The wrapper is the only way to a
// handler, so they are there; a handler called otherwise is a mistake of ours.
func requestFrom(ctx context.Context) *request {
	r, ok := ctx.Value(requestKey{}).(*request)
	if !ok {
		panic("server: a handler was called past the wrapper")
	}
	return r
}

// wrap returns desc with every method behind this server's checks.
func (s *Server) wrap(desc *grpc.ServiceDesc, at socket) (*grpc.ServiceDesc, error) {
	if len(desc.Streams) > 0 {
		return nil, fmt.Errorf("serving %s: streams are not served", desc.ServiceName)
	}
	out := *desc
	out.Methods = make([]grpc.MethodDesc, len(desc.Methods))
	for i, m := range desc.Methods {
		full := "/" + desc.ServiceName + "/" + m.MethodName
		if lookup(full) == nil {
			return nil, fmt.Errorf("serving %s: the access table has no row for it", full)
		}
		out.Methods[i] = grpc.MethodDesc{
			MethodName: m.MethodName,
			Handler: func(impl any, ctx context.Context, receive func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				return s.serve(ctx, at, full, receive, func(ctx context.Context, decode func(any) error) (any, error) {
					return m.Handler(impl, ctx, decode, nil)
				})
			},
		}
	}
	return &out, nil
}

// serve runs one call and is the edge: whatever goes wrong inside becomes a
// status and one log line here.
func (s *Server) serve(ctx context.Context, at socket, method string, receive func(any) error,
	handle func(context.Context, func(any) error) (any, error)) (reply any, err error) {
	req := &request{method: method, at: at}
	start := time.Now()
	defer func() {
		clear(req.apiKey)
		if p := recover(); p != nil {
			s.logPanic(p, req)
			reply, err = nil, errPanicked
		}
		if err != nil {
			reply, err = nil, s.refused(ctx, req, err, time.Since(start))
			return
		}
		s.counts.ended(method, reasonOK, time.Since(start))
	}()

	// Step 1: who calls.
	caller, ok := callerFrom(ctx)
	if !ok {
		return nil, refusal.New(refusal.CallerNotAllowed, "the connection has no caller")
	}
	req.caller = caller

	// Step 2: the access table, before the message is received at all.
	row, err := s.cfg.Roles.admit(caller, at, method)
	if err != nil {
		return nil, err
	}
	if err := s.buckets.take(caller.UID); err != nil {
		return nil, err
	}
	md, _ := metadata.FromIncomingContext(ctx)
	if err := checkEncoding(md); err != nil {
		return nil, err
	}
	ctx, cancel := s.withDeadline(ctx, row)
	defer cancel()

	// Step 3: authenticate over the bytes as they came.
	message, err := s.receive(ctx, row, receive)
	if err != nil {
		return nil, err
	}
	shown, err := s.authenticate(ctx, row, md, message)
	if err != nil {
		return nil, err
	}
	req.hash, req.message, req.stamps = sha256.Sum256(message), message, shown.stamps
	req.organizationID, req.credentials, req.apiKey = shown.organizationID, shown.credentials, shown.apiKey

	// Then read them, strictly, and let the handler act.
	return handle(context.WithValue(ctx, requestKey{}, req), func(v any) error {
		m, ok := v.(proto.Message)
		if !ok {
			return fmt.Errorf("decoding: %T is not a protobuf message", v)
		}
		if err := strictUnmarshal(message, m); err != nil {
			return refusal.New(refusal.RequestInvalid, "%v", err)
		}
		return checkOrganization(row, shown, m)
	})
}

var errPanicked = errors.New("a handler panicked")

// checkEncoding takes protobuf only: the forced codec would read anything as such.
func checkEncoding(md metadata.MD) error {
	for _, value := range md.Get("content-type") {
		if value != "application/grpc" && value != "application/grpc+proto" {
			return refusal.New(refusal.RequestInvalid, "content-type must be application/grpc or application/grpc+proto")
		}
	}
	return nil
}

// withDeadline gives a call without deadline the row's, and bounds every other.
func (s *Server) withDeadline(ctx context.Context, row *access) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithTimeout(ctx, s.cfg.Limits.MaxDeadline) // the earlier of both holds
	}
	if row.deadline > 0 {
		return context.WithTimeout(ctx, min(row.deadline, s.cfg.Limits.MaxDeadline))
	}
	return context.WithTimeout(ctx, s.cfg.Limits.Deadline)
}

// receive reads the one message of the call.
func (s *Server) receive(ctx context.Context, row *access, receive func(any) error) ([]byte, error) {
	var f frame
	if err := receive(&f); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		// gRPC has answered the caller already, with a code of its own; this is for the log.
		return nil, refusal.New(refusal.RequestInvalid, "receiving the request: %s", status.Convert(err).Message())
	}
	if len(f.bytes) > row.maxBytes {
		return nil, refusal.New(refusal.RequestInvalid, "the request has %d bytes, this method takes at most %d", len(f.bytes), row.maxBytes)
	}
	return f.bytes, nil
}

// checkOrganization holds the message to the organization that was stamped for.
func checkOrganization(row *access, shown proven, m proto.Message) error {
	if row.by != byStamps && row.by != byEither {
		return nil
	}
	named := ""
	r := m.ProtoReflect()
	if f := r.Descriptor().Fields().ByName("organization_id"); f != nil && f.Kind() == protoreflect.StringKind {
		named = r.Get(f).String()
	}
	if named != shown.organizationID {
		return refusal.New(refusal.StampInvalid, "the stamps name another organization than the request")
	}
	return nil
}

// refused logs err once, whole, counts it, and returns what the caller may see.
func (s *Server) refused(ctx context.Context, req *request, err error, took time.Duration) error {
	st, row := statusOf(err)
	s.log.Log(ctx, row.level, "call refused", "method", req.method, "reason", string(row.reason),
		"uid", req.caller.UID, "gid", req.caller.GID, "pid", req.caller.PID, "process", req.caller.Process, "unit", req.caller.seenUnit(),
		"organization", req.organizationID, "took", took, "err", err)
	s.counts.ended(req.method, string(row.reason), took)
	if s.cfg.Refusals != nil {
		s.cfg.Refusals.Refused(string(row.reason), req.at.String(), req.caller.UID)
	}
	return st.Err()
}

// logPanic logs where, and of what type; the value only when it is Go's own,
// since anything else could hold a secret.
func (s *Server) logPanic(p any, req *request) {
	what := fmt.Sprintf("%T", p)
	if e, ok := p.(runtime.Error); ok {
		what = e.Error()
	}
	s.log.Error("a handler panicked", "method", req.method, "panic", what, "stack", string(debug.Stack()))
}
