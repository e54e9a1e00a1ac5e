package server

import (
	"context"
	"time"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/signing"
)

// Handler of signing.proto: steps 3 to 10 are signing's.

type signingService struct {
	sigilv1.UnimplementedSigningServiceServer
	a *Appliance
}

func (s signingService) Sign(ctx context.Context, r *sigilv1.SignRequest) (*sigilv1.SignResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	if err := delegation.CheckRequestID(r.GetRequestId()); err != nil {
		return nil, err
	}
	in := signing.Request{
		ID: r.GetRequestId(), WalletID: r.GetWalletId(), APIKey: requestFrom(ctx).apiKey, Method: actor.Method, Caller: actor.Caller,
		Organization: actor.Organization, Stamps: actor.Credentials,
		Unit: requestFrom(ctx).caller.Unit, ApprovalTime: time.Duration(r.GetApprovalSeconds()) * time.Second,
	}
	if r.ApprovalSeconds != nil && r.GetApprovalSeconds() == 0 {
		return nil, refusal.New(refusal.RequestInvalid, "approval_seconds is 0; leave it out for 600").With("field", "approval_seconds")
	}
	if in.Kind, in.Payload = payloadOf(r); in.Kind == "" {
		return nil, refusal.New(refusal.RequestInvalid, "the request has no payload").With("field", "payload")
	}
	return signResponse(p.Signing.Sign(ctx, in))
}

func signResponse(out *signing.Result, err error) (*sigilv1.SignResponse, error) {
	if err != nil {
		return nil, err
	}
	return &sigilv1.SignResponse{
		Signature: out.Signature, SignedTransaction: out.Signed, TransactionId: out.TransactionID,
		Summary: out.Summary, Rule: out.Rule, JournalSequence: out.Sequence,
	}, nil
}

// payloadOf is what a request asks to sign, "" when it has no payload.
func payloadOf(r *sigilv1.SignRequest) (chains.Kind, []byte) {
	switch v := r.GetPayload().(type) {
	case *sigilv1.SignRequest_EvmTransaction:
		return chains.KindEVMTransaction, v.EvmTransaction
	case *sigilv1.SignRequest_EvmMessage:
		return chains.KindEVMMessage, v.EvmMessage
	case *sigilv1.SignRequest_EvmTypedData:
		return chains.KindEVMTypedData, v.EvmTypedData
	case *sigilv1.SignRequest_EvmAuthorization:
		return chains.KindEVMAuthorization, v.EvmAuthorization
	case *sigilv1.SignRequest_EvmUserOperation:
		return chains.KindEVMUserOperation, v.EvmUserOperation
	case *sigilv1.SignRequest_EvmSafeTransaction:
		return chains.KindEVMSafeTransaction, v.EvmSafeTransaction
	case *sigilv1.SignRequest_SolanaMessage:
		return chains.KindSolanaMessage, v.SolanaMessage
	case *sigilv1.SignRequest_SolanaOffchainMessage:
		return chains.KindSolanaOffchain, v.SolanaOffchainMessage
	case *sigilv1.SignRequest_RawDigest:
		return signing.KindRawDigest, v.RawDigest
	}
	return "", nil
}
