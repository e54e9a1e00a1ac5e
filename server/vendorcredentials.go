package server

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/signing"
	"github.com/sigild/sigild/stamping"
)

// Handlers of vendorcredential.proto.

type vendorCredentialService struct {
	sigilv1.UnimplementedVendorCredentialServiceServer
	a *Appliance
}

func (s vendorCredentialService) CreateVendorCredential(ctx context.Context, r *sigilv1.CreateVendorCredentialRequest) (*sigilv1.CreateVendorCredentialResponse, error) {
	defer clear(r.GetPrivateKey())
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	n := stamping.NewCredential{RequestID: r.GetRequestId(), Organization: r.GetOrganizationId(), Name: r.GetName(), Private: r.GetPrivateKey()}
	if r.PrivateKey != nil && len(r.GetPrivateKey()) == 0 {
		return nil, refusal.New(refusal.RequestInvalid, "private_key is empty").With("field", "private_key")
	}
	switch account := r.GetAccount().(type) {
	case *sigilv1.CreateVendorCredentialRequest_Turnkey:
		n.Vendor, n.Account = stamping.Turnkey, account.Turnkey.GetOrganizationId()
	case *sigilv1.CreateVendorCredentialRequest_Dfns:
		n.Vendor, n.Account = stamping.Dfns, account.Dfns.GetCredentialId()
		n.TrustCaller = account.Dfns.GetTrustCaller()
		if w := account.Dfns.GetWitness(); w != nil {
			key, err := credential.ParsePublicKey(algorithms[w.GetAlgorithm()], w.GetPublicKey())
			if err != nil {
				return nil, refusal.New(refusal.RequestInvalid, "the witness: %v", err).With("field", "witness")
			}
			n.Witness = &key
		}
	}
	made, err := p.Stamping.Create(ctx, p.Delegation.Acting(actor), n)
	if err != nil {
		return nil, err
	}
	return &sigilv1.CreateVendorCredentialResponse{CredentialId: made.CredentialID, PublicKey: made.PublicKey}, nil
}

func (s vendorCredentialService) ListVendorCredentials(ctx context.Context, r *sigilv1.ListVendorCredentialsRequest) (*sigilv1.ListVendorCredentialsResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	list, err := p.Stamping.Credentials(p.Delegation.Acting(actor), r.GetOrganizationId())
	if err != nil {
		return nil, err
	}
	out := &sigilv1.ListVendorCredentialsResponse{}
	for _, c := range list {
		out.Credentials = append(out.Credentials, vendorCredentialMessage(c))
	}
	return out, nil
}

func vendorCredentialMessage(c stamping.Credential) *sigilv1.VendorCredential {
	m := &sigilv1.VendorCredential{
		CredentialId: c.ID, Name: c.Name, PublicKey: c.PublicKey, Imported: c.Imported, CreatedAt: timestamppb.New(c.CreatedAt),
		Status: sigilv1.VendorCredentialStatus_VENDOR_CREDENTIAL_STATUS_ACTIVE,
	}
	if c.Status == stamping.Revoked {
		m.Status, m.RevokedAt = sigilv1.VendorCredentialStatus_VENDOR_CREDENTIAL_STATUS_REVOKED, timestamppb.New(c.RevokedAt)
	}
	if c.Vendor == stamping.Turnkey {
		m.Account = &sigilv1.VendorCredential_Turnkey{Turnkey: &sigilv1.TurnkeyAccount{OrganizationId: c.Account}}
		return m
	}
	account := &sigilv1.DfnsAccount{CredentialId: c.Account}
	if c.Witness != nil {
		account.Challenges = &sigilv1.DfnsAccount_Witness{Witness: &sigilv1.DfnsWitness{Algorithm: algorithmMessage(c.Witness.Algorithm), PublicKey: c.Witness.Bytes}}
	} else {
		account.Challenges = &sigilv1.DfnsAccount_TrustCaller{TrustCaller: true}
	}
	m.Account = &sigilv1.VendorCredential_Dfns{Dfns: account}
	return m
}

// algorithmMessage is the API's word for an algorithm.
func algorithmMessage(a credential.Algorithm) sigilv1.CredentialAlgorithm {
	for word, algorithm := range algorithms {
		if algorithm == a {
			return word
		}
	}
	return sigilv1.CredentialAlgorithm_CREDENTIAL_ALGORITHM_UNSPECIFIED
}

func (s vendorCredentialService) BindVendorCredential(ctx context.Context, r *sigilv1.BindVendorCredentialRequest) (*sigilv1.BindVendorCredentialResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	n := delegation.NewCredentialBinding{Credential: r.GetCredentialId(), SignWith: r.GetSignWith(), Chain: r.GetChain(), Address: r.GetAddress(), Name: r.GetName()}
	if n.NewDelegation, err = readTerms(r); err != nil {
		return nil, err
	}
	made, err := p.Delegation.BindVendorCredential(ctx, actor, n)
	if err != nil {
		return nil, err
	}
	return &sigilv1.BindVendorCredentialResponse{DelegationId: made.DelegationID, WalletId: made.WalletID}, nil
}

func (s vendorCredentialService) RevokeVendorCredential(ctx context.Context, r *sigilv1.RevokeVendorCredentialRequest) (*sigilv1.RevokeVendorCredentialResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	out, err := p.Stamping.Revoke(ctx, p.Delegation.Acting(actor), r.GetRequestId(), r.GetOrganizationId(), r.GetCredentialId())
	if err != nil {
		return nil, err
	}
	return &sigilv1.RevokeVendorCredentialResponse{DelegationIds: out.Delegations}, nil
}

type stampingService struct {
	sigilv1.UnimplementedStampingServiceServer
	a *Appliance
}

func (s stampingService) StampRequest(ctx context.Context, r *sigilv1.StampRequestRequest) (*sigilv1.StampRequestResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	if err := delegation.CheckRequestID(r.GetRequestId()); err != nil {
		return nil, err
	}
	if r.ApprovalSeconds != nil && r.GetApprovalSeconds() == 0 {
		return nil, refusal.New(refusal.RequestInvalid, "approval_seconds is 0; leave it out for 600").With("field", "approval_seconds")
	}
	in := signing.Request{
		ID: r.GetRequestId(), WalletID: r.GetWalletId(), APIKey: requestFrom(ctx).apiKey, Method: actor.Method, Caller: actor.Caller,
		Unit: requestFrom(ctx).caller.Unit, ApprovalTime: time.Duration(r.GetApprovalSeconds()) * time.Second,
	}
	switch v := r.GetRequest().(type) {
	case *sigilv1.StampRequestRequest_Turnkey:
		in.Vendor = &signing.VendorBody{Vendor: string(stamping.Turnkey), Body: v.Turnkey.GetBody()}
	case *sigilv1.StampRequestRequest_Dfns:
		in.Vendor = &signing.VendorBody{
			Vendor: string(stamping.Dfns), Body: v.Dfns.GetBody(), Method: v.Dfns.GetMethod(), Path: v.Dfns.GetPath(),
			Challenge: v.Dfns.GetChallenge(), Witness: v.Dfns.GetWitnessSignature(),
		}
	default:
		return nil, refusal.New(refusal.RequestInvalid, "the request has nothing to stamp").With("field", "request")
	}
	out, err := p.Signing.Sign(ctx, in)
	if err != nil {
		return nil, err
	}
	answer := &sigilv1.StampRequestResponse{Summary: out.Summary, Rule: out.Rule, JournalSequence: out.Sequence}
	if out.Stamp.Header != "" {
		answer.Stamp = &sigilv1.StampRequestResponse_Header{Header: &sigilv1.HeaderStamp{Name: out.Stamp.Header, Value: out.Stamp.Value}}
	} else {
		answer.Stamp = &sigilv1.StampRequestResponse_FirstFactor{FirstFactor: out.Stamp.Value}
	}
	return answer, nil
}
