package server

import (
	"context"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/refusal"
)

// Handlers of keydelegation.proto.

type keyDelegationService struct {
	sigilv1.UnimplementedKeyDelegationServiceServer
	a *Appliance
}

func (s keyDelegationService) CreateKey(ctx context.Context, r *sigilv1.CreateKeyRequest) (*sigilv1.CreateKeyResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	n := delegation.NewWallet{
		RequestID: r.GetRequestId(), Organization: r.GetOrganizationId(), Owner: r.GetDelegateTo(), Chain: r.GetChain(), Name: r.GetName(),
	}
	switch v := r.GetOwnership().(type) {
	case *sigilv1.CreateKeyRequest_DelegateTo:
		if v.DelegateTo == "" {
			return nil, refusal.New(refusal.RequestInvalid, "delegate_to is empty; leave it out for a key of the organization").With("field", "delegate_to")
		}
	case *sigilv1.CreateKeyRequest_DelayDelegation:
		if n.Delay = v.DelayDelegation; !n.Delay {
			return nil, refusal.New(refusal.RequestInvalid, "delay_delegation is false; leave it out").With("field", "delay_delegation")
		}
	}
	made, err := p.Delegation.CreateKey(ctx, actor, n)
	if err != nil {
		return nil, err
	}
	return &sigilv1.CreateKeyResponse{KeyId: made.KeyID, WalletId: made.WalletID, CeremonyId: made.CeremonyID}, nil
}

func (s keyDelegationService) DelegateKey(ctx context.Context, r *sigilv1.DelegateKeyRequest) (*sigilv1.DelegateKeyResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	out, err := p.Delegation.DelegateKey(ctx, actor, delegation.NewKeyDelegation{
		RequestID: r.GetRequestId(), Organization: r.GetOrganizationId(), Key: r.GetKeyId(), To: r.GetDelegateTo(),
	})
	if err != nil {
		return nil, err
	}
	return &sigilv1.DelegateKeyResponse{KeyId: out.KeyID, Status: out.Status, Custody: out.Custody}, nil
}

// signatureKinds are the words of the API for kinds of payloads.
var signatureKinds = map[chains.Kind]sigilv1.SignatureKind{
	chains.KindEVMTransaction:     sigilv1.SignatureKind_SIGNATURE_KIND_TRANSACTION,
	chains.KindSolanaMessage:      sigilv1.SignatureKind_SIGNATURE_KIND_TRANSACTION,
	chains.KindEVMUserOperation:   sigilv1.SignatureKind_SIGNATURE_KIND_MESSAGE,
	chains.KindSolanaOffchain:     sigilv1.SignatureKind_SIGNATURE_KIND_MESSAGE,
	chains.KindEVMMessage:         sigilv1.SignatureKind_SIGNATURE_KIND_EIP191,
	chains.KindEVMTypedData:       sigilv1.SignatureKind_SIGNATURE_KIND_EIP712,
	chains.KindEVMSafeTransaction: sigilv1.SignatureKind_SIGNATURE_KIND_EIP712,
	chains.KindEVMAuthorization:   sigilv1.SignatureKind_SIGNATURE_KIND_EIP7702,
}

func (s keyDelegationService) GetSignature(ctx context.Context, r *sigilv1.GetSignatureRequest) (*sigilv1.GetSignatureResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	g, err := p.Delegation.Signature(ctx, actor, r.GetOrganizationId(), r.GetExternalId())
	if err != nil {
		return nil, err
	}
	out := &sigilv1.GetSignatureResponse{ExternalId: g.RequestID, WalletId: g.Wallet, Kind: signatureKinds[chains.Kind(g.Kind)], Signature: g.Answer}
	switch {
	case g.Rejected:
		out.Status = sigilv1.SignatureStatus_SIGNATURE_STATUS_REJECTED
	case g.Waiting:
		out.Status = sigilv1.SignatureStatus_SIGNATURE_STATUS_PENDING
	case g.State == journal.StateSigned:
		out.Status = sigilv1.SignatureStatus_SIGNATURE_STATUS_SIGNED
	case g.State == journal.StateFailed:
		out.Status = sigilv1.SignatureStatus_SIGNATURE_STATUS_FAILED
	default:
		out.Status = sigilv1.SignatureStatus_SIGNATURE_STATUS_EXECUTING
	}
	return out, nil
}
