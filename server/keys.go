package server

import (
	"context"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/delegation"
)

// Handlers of key.proto.

type keyService struct {
	sigilv1.UnimplementedKeyServiceServer
	a *Appliance
}

func (s keyService) GetKey(ctx context.Context, r *sigilv1.GetKeyRequest) (*sigilv1.GetKeyResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	k, err := p.Delegation.Key(ctx, actor, r.GetOrganizationId(), r.GetWalletId())
	if err != nil {
		return nil, err
	}
	out := p.keyMessage(k)
	if out.Sealing, err = keySealing(p.Delegation, k.ID); err != nil {
		return nil, err
	}
	return &sigilv1.GetKeyResponse{Key: out}, nil
}

func (s keyService) SetKey(ctx context.Context, r *sigilv1.SetKeyRequest) (*sigilv1.SetKeyResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	n := delegation.KeySettings{RequestID: r.GetRequestId(), Organization: r.GetOrganizationId(), Wallet: r.GetWalletId(), Presignatures: r.Presignatures}
	if r.RotateEverySeconds != nil {
		every := time.Duration(r.GetRotateEverySeconds()) * time.Second
		n.RotateEvery = &every
	}
	k, err := p.Delegation.SetKey(ctx, actor, n)
	if err != nil {
		return nil, err
	}
	return &sigilv1.SetKeyResponse{Key: p.keyMessage(k)}, nil
}

func (s keyService) RotateKey(ctx context.Context, r *sigilv1.RotateKeyRequest) (*sigilv1.RotateKeyResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	made, err := p.Delegation.RotateKey(ctx, actor, delegation.NewRotation{RequestID: r.GetRequestId(), Organization: r.GetOrganizationId(), Wallet: r.GetWalletId()})
	if err != nil {
		return nil, err
	}
	return &sigilv1.RotateKeyResponse{CeremonyId: made.CeremonyID}, nil
}

func (s keyService) RecoverShare(ctx context.Context, r *sigilv1.RecoverShareRequest) (*sigilv1.RecoverShareResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	made, err := p.Delegation.RecoverShare(ctx, actor, delegation.NewShareRecovery{
		RequestID: r.GetRequestId(), Organization: r.GetOrganizationId(), Wallet: r.GetWalletId(),
		Recipient: r.GetShareRecipient(), RecipientSignature: r.GetShareRecipientSignature(),
	})
	if err != nil {
		return nil, err
	}
	return &sigilv1.RecoverShareResponse{CeremonyId: made.CeremonyID}, nil
}

func (s keyService) RecoverDevice(ctx context.Context, r *sigilv1.RecoverDeviceRequest) (*sigilv1.RecoverDeviceResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	credentials, err := newCredentials(r.GetCredentials())
	if err != nil {
		return nil, err
	}
	made, err := p.Delegation.RecoverDevice(ctx, actor, delegation.NewDeviceRecovery{
		RequestID: r.GetRequestId(), Organization: r.GetOrganizationId(), User: r.GetUserId(), Credentials: credentials,
		Recipient: r.GetShareRecipient(), RecipientSignature: r.GetShareRecipientSignature(),
	})
	if err != nil {
		return nil, err
	}
	return &sigilv1.RecoverDeviceResponse{CeremonyIds: made.Ceremonies}, nil
}

func (s keyService) RecoverCustodian(ctx context.Context, r *sigilv1.RecoverCustodianRequest) (*sigilv1.RecoverCustodianResponse, error) {
	// The received frame holds the share, too, and is gRPC's: see docs/attacksurface.md.
	defer clear(r.GetUserShare())
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	made, err := p.Delegation.RecoverCustodian(ctx, actor, delegation.NewCustodianRecovery{
		RequestID: r.GetRequestId(), Organization: r.GetOrganizationId(), Wallet: r.GetWalletId(), Share: r.GetUserShare(),
	})
	if err != nil {
		return nil, err
	}
	return &sigilv1.RecoverCustodianResponse{CeremonyId: made.CeremonyID}, nil
}

func (p *Parts) keyMessage(k delegation.Key) *sigilv1.Key {
	out := &sigilv1.Key{
		KeyId: k.ID, OwnerUserId: k.Owner, Status: k.Status, Scheme: string(k.Scheme), PublicKey: k.PublicKey, Origin: k.Origin, Custody: k.Custody,
		WalletIds: k.Wallets, RootSet: k.RootSet, Parties: k.Parties, Threshold: uint32(k.Threshold), SharesHere: k.SharesHere, Epoch: k.Epoch,
		RootSince: timestamppb.New(k.RootSince), RotateEverySeconds: uint32(k.RotateEvery / time.Second), ShareWaits: k.ShareWaits, RenewalOwed: k.Renew,
		Frozen: k.Frozen, Presignatures: k.Presignatures,
	}
	for _, party := range slices.Sorted(maps.Keys(k.Failures)) {
		out.Failures = append(out.Failures, &sigilv1.PartyFailures{Party: party, Count: uint32(k.Failures[party])})
	}
	ready, _ := p.Signing.Presignatures().Ready(k.ID)
	out.PresignaturesReady = uint32(ready)
	if p.Signing.Presignatures().Refused() != nil && k.Presignatures {
		why := "the engine failed the test of presignatures; the log has the cause"
		out.PresignaturesRefused = &why
	}
	return out
}
