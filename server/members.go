package server

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/refusal"
)

// Handlers of member.proto, and credentials between the wire and delegation.

type memberService struct {
	sigilv1.UnimplementedMemberServiceServer
	a *Appliance
}

// algorithms are those of the API.
var algorithms = map[sigilv1.CredentialAlgorithm]credential.Algorithm{
	sigilv1.CredentialAlgorithm_CREDENTIAL_ALGORITHM_P256:          credential.P256,
	sigilv1.CredentialAlgorithm_CREDENTIAL_ALGORITHM_ED25519:       credential.Ed25519,
	sigilv1.CredentialAlgorithm_CREDENTIAL_ALGORITHM_SECP256K1:     credential.Secp256k1,
	sigilv1.CredentialAlgorithm_CREDENTIAL_ALGORITHM_WEBAUTHN_P256: credential.WebAuthnP256,
}

// newCredentials checks the form of public keys; their proofs are delegation's.
func newCredentials(in []*sigilv1.NewCredential) ([]delegation.NewCredential, error) {
	out := make([]delegation.NewCredential, 0, len(in))
	for _, c := range in {
		one, err := newCredential(c)
		if err != nil {
			return nil, err
		}
		out = append(out, one)
	}
	return out, nil
}

func newCredential(c *sigilv1.NewCredential) (delegation.NewCredential, error) {
	algorithm, ok := algorithms[c.GetAlgorithm()]
	if !ok {
		return delegation.NewCredential{}, refusal.New(refusal.RequestInvalid, "unknown credential algorithm %d", c.GetAlgorithm()).With("field", "algorithm")
	}
	key, err := credential.ParsePublicKey(algorithm, c.GetPublicKey())
	if err != nil {
		return delegation.NewCredential{}, refusal.New(refusal.RequestInvalid, "the public key of credential %q is not usable", c.GetName()).With("field", "public_key").Because(err)
	}
	out := delegation.NewCredential{
		Name: c.GetName(), PublicKey: key, Proof: c.GetProof(), UnusedAlarm: time.Duration(c.GetUnusedAlarmSeconds()) * time.Second,
	}
	if w := c.Webauthn; w != nil {
		out.Party = &credential.RelyingParty{CredentialID: w.GetCredentialId(), ID: w.GetRpId(), Origins: w.GetOrigins()}
		if err := out.Party.Check(); err != nil {
			return delegation.NewCredential{}, refusal.New(refusal.RequestInvalid, "credential %q: %v", c.GetName(), err).With("field", "webauthn")
		}
	}
	if out.ExpiresAt, err = instant(c.ExpiresAt, "expires_at"); err != nil {
		return delegation.NewCredential{}, err
	}
	return out, nil
}

// instant reads an optional time.
func instant(t *timestamppb.Timestamp, field string) (*time.Time, error) {
	if t == nil {
		return nil, nil
	}
	if err := t.CheckValid(); err != nil {
		return nil, refusal.New(refusal.RequestInvalid, "%s is no time", field).With("field", field)
	}
	at := t.AsTime()
	return &at, nil
}

// timestamp is its inverse.
func timestamp(t *time.Time) *timestamppb.Timestamp {
	if t == nil {
		return nil
	}
	return timestamppb.New(*t)
}

func (s memberService) ListMembers(ctx context.Context, r *sigilv1.ListMembersRequest) (*sigilv1.ListMembersResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	m, err := p.Delegation.Members(actor, r.GetOrganizationId())
	if err != nil {
		return nil, err
	}
	out := &sigilv1.ListMembersResponse{Name: m.Name, ParentOrganizationId: said(m.Parent), RootCredentials: credentialMessages(m.Root), RootQuorum: uint32(m.Quorum)}
	for _, u := range m.Users {
		one := &sigilv1.Member{UserId: u.ID, Name: u.Name, Tags: u.Tags, Credentials: credentialMessages(u.Credentials), Root: u.Root, Removed: u.Removed}
		one.Kind = sigilv1.UserKind_USER_KIND_END_USER
		if u.Kind == delegation.DelegatedUser {
			one.Kind = sigilv1.UserKind_USER_KIND_DELEGATED_USER
		}
		out.Members = append(out.Members, one)
	}
	return out, nil
}

func credentialMessages(list []delegation.MemberCredential) []*sigilv1.RegisteredCredential {
	var out []*sigilv1.RegisteredCredential
	for _, c := range list {
		one := &sigilv1.RegisteredCredential{
			CredentialId: c.ID, Name: c.Name, PublicKey: c.PublicKey.Bytes, Line: said(c.Line), Unused: c.Unused,
			CreatedAt: timestamp(c.CreatedAt), ExpiresAt: timestamp(c.ExpiresAt), LastUsedAt: timestamp(c.LastUsed),
		}
		for wire, a := range algorithms {
			if a == c.PublicKey.Algorithm {
				one.Algorithm = wire
			}
		}
		if c.Party != nil {
			one.Webauthn = &sigilv1.WebAuthnParty{CredentialId: c.Party.CredentialID, RpId: c.Party.ID, Origins: c.Party.Origins}
		}
		if c.UnusedAlarm > 0 {
			seconds := uint32(c.UnusedAlarm / time.Second)
			one.UnusedAlarmSeconds = &seconds
		}
		out = append(out, one)
	}
	return out
}

func (s memberService) AddCredential(ctx context.Context, r *sigilv1.AddCredentialRequest) (*sigilv1.AddCredentialResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	c, err := newCredential(r.GetCredential())
	if err != nil {
		return nil, err
	}
	made, err := p.Delegation.AddCredential(ctx, actor, delegation.AddedCredential{
		RequestID: r.GetRequestId(), Organization: r.GetOrganizationId(), User: r.GetUserId(), Credential: c,
	})
	if err != nil {
		return nil, err
	}
	return &sigilv1.AddCredentialResponse{CredentialId: made.CredentialID}, nil
}

func (s memberService) RotateCredential(ctx context.Context, r *sigilv1.RotateCredentialRequest) (*sigilv1.RotateCredentialResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	c, err := newCredential(r.GetCredential())
	if err != nil {
		return nil, err
	}
	made, err := p.Delegation.RotateCredential(ctx, actor, delegation.Rotation{
		RequestID: r.GetRequestId(), Organization: r.GetOrganizationId(), User: r.GetUserId(), Old: r.GetCredentialId(), New: c,
		Overlap: time.Duration(r.GetOverlapSeconds()) * time.Second,
	})
	if err != nil {
		return nil, err
	}
	return &sigilv1.RotateCredentialResponse{CredentialId: made.CredentialID, ExpiresAt: timestamp(made.ExpiresAt), OldEndsAt: timestamp(made.OldEndsAt)}, nil
}

func (s memberService) RevokeCredential(ctx context.Context, r *sigilv1.RevokeCredentialRequest) (*sigilv1.RevokeCredentialResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	out, err := p.Delegation.RevokeCredential(ctx, actor, delegation.Revocation{
		RequestID: r.GetRequestId(), Organization: r.GetOrganizationId(), User: r.GetUserId(), Credential: r.GetCredentialId(), KeepSuccessors: r.GetKeepSuccessors(),
	})
	if err != nil {
		return nil, err
	}
	return &sigilv1.RevokeCredentialResponse{EndedCredentialIds: out.Ended}, nil
}

func (s memberService) SetTags(ctx context.Context, r *sigilv1.SetTagsRequest) (*sigilv1.SetTagsResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	err = p.Delegation.SetTags(ctx, actor, delegation.NewTags{RequestID: r.GetRequestId(), Organization: r.GetOrganizationId(), User: r.GetUserId(), Tags: r.GetTags()})
	if err != nil {
		return nil, err
	}
	return &sigilv1.SetTagsResponse{}, nil
}

func (s memberService) RemoveUser(ctx context.Context, r *sigilv1.RemoveUserRequest) (*sigilv1.RemoveUserResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	if err := p.Delegation.RemoveUser(ctx, actor, r.GetRequestId(), r.GetOrganizationId(), r.GetUserId()); err != nil {
		return nil, err
	}
	return &sigilv1.RemoveUserResponse{}, nil
}

func (s memberService) SetRootQuorum(ctx context.Context, r *sigilv1.SetRootQuorumRequest) (*sigilv1.SetRootQuorumResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	err = p.Delegation.SetRootQuorum(ctx, actor, delegation.NewQuorum{
		RequestID: r.GetRequestId(), Organization: r.GetOrganizationId(), Users: r.GetUserIds(), Credentials: r.GetCredentialIds(), Quorum: int(r.GetRootQuorum()),
	})
	if err != nil {
		return nil, err
	}
	return &sigilv1.SetRootQuorumResponse{}, nil
}
