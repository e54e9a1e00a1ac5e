package server

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/delegation"
)

// Handlers of organization.proto: from the wire to delegation and back. They
// decide nothing.

type organizationService struct {
	sigilv1.UnimplementedOrganizationServiceServer
	a *Appliance
}

func (s organizationService) CreateOrganization(ctx context.Context, r *sigilv1.CreateOrganizationRequest) (*sigilv1.CreateOrganizationResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	root, err := newCredentials(r.GetRootCredentials())
	if err != nil {
		return nil, err
	}
	n := delegation.NewOrganization{RequestID: r.GetRequestId(), Name: r.GetName(), Root: root, Quorum: int(r.GetRootQuorum())}
	if b := r.BundleAuthority; b != nil {
		keys, err := newCredentials(b.GetCredentials())
		if err != nil {
			return nil, err
		}
		n.Bundle = &delegation.NewBundleAuthority{Keys: keys, Quorum: int(b.GetQuorum())}
	}
	made, err := p.Delegation.CreateOrganization(ctx, actor, n)
	if err != nil {
		return nil, err
	}
	return &sigilv1.CreateOrganizationResponse{OrganizationId: made.OrganizationID}, nil
}

type userService struct {
	sigilv1.UnimplementedUserServiceServer
	a *Appliance
}

func (s userService) CreateUser(ctx context.Context, r *sigilv1.CreateUserRequest) (*sigilv1.CreateUserResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	credentials, err := newCredentials(r.GetCredentials())
	if err != nil {
		return nil, err
	}
	kinds := map[sigilv1.UserKind]delegation.UserKind{
		sigilv1.UserKind_USER_KIND_END_USER:       delegation.EndUser,
		sigilv1.UserKind_USER_KIND_DELEGATED_USER: delegation.DelegatedUser,
	}
	made, err := p.Delegation.CreateUser(ctx, actor, delegation.NewUser{
		RequestID: r.GetRequestId(), Organization: r.GetOrganizationId(), Name: r.GetName(), Kind: kinds[r.GetKind()],
		Credentials: credentials, ShareRecipient: r.GetShareRecipient(), RecipientSignature: r.GetShareRecipientSignature(), Tags: r.GetTags(),
	})
	if err != nil {
		return nil, err
	}
	return &sigilv1.CreateUserResponse{UserId: made.UserID}, nil
}

type walletService struct {
	sigilv1.UnimplementedWalletServiceServer
	a *Appliance
}

func (s walletService) CreateWallet(ctx context.Context, r *sigilv1.CreateWalletRequest) (*sigilv1.CreateWalletResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	made, err := p.Delegation.CreateWallet(ctx, actor, delegation.NewWallet{
		RequestID: r.GetRequestId(), Organization: r.GetOrganizationId(), Owner: r.GetOwnerUserId(), Chain: r.GetChain(), Name: r.GetName(), Delay: r.GetDelayDelegation(),
	})
	if err != nil {
		return nil, err
	}
	return &sigilv1.CreateWalletResponse{WalletId: made.WalletID, KeyId: made.KeyID, CeremonyId: made.CeremonyID}, nil
}

func (s walletService) ImportWallet(ctx context.Context, r *sigilv1.ImportWalletRequest) (*sigilv1.ImportWalletResponse, error) {
	// The received frame holds the key, too, and is gRPC's: see docs/attacksurface.md.
	defer clear(r.GetPrivateKey())
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	made, err := p.Delegation.ImportWallet(ctx, actor, delegation.NewImport{
		NewWallet: delegation.NewWallet{
			RequestID: r.GetRequestId(), Organization: r.GetOrganizationId(), Owner: r.GetOwnerUserId(), Chain: r.GetChain(), Name: r.GetName(),
		},
		Secret: r.GetPrivateKey(),
	})
	if err != nil {
		return nil, err
	}
	return &sigilv1.ImportWalletResponse{WalletId: made.WalletID, KeyId: made.KeyID, CeremonyId: made.CeremonyID}, nil
}

func (s walletService) DeriveWallet(ctx context.Context, r *sigilv1.DeriveWalletRequest) (*sigilv1.DeriveWalletResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	w, err := p.Delegation.DeriveWallet(ctx, actor, delegation.NewDerived{
		RequestID: r.GetRequestId(), Organization: r.GetOrganizationId(), Wallet: r.GetWalletId(), Path: r.GetPath(), Name: r.GetName(),
	})
	if err != nil {
		return nil, err
	}
	return &sigilv1.DeriveWalletResponse{Wallet: walletMessage(w)}, nil
}

func (s walletService) GetWallet(ctx context.Context, r *sigilv1.GetWalletRequest) (*sigilv1.GetWalletResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	w, err := p.Delegation.Wallet(actor, r.GetOrganizationId(), r.GetWalletId())
	if err != nil {
		return nil, err
	}
	return &sigilv1.GetWalletResponse{Wallet: walletMessage(w)}, nil
}

func (s walletService) GetCeremony(ctx context.Context, r *sigilv1.GetCeremonyRequest) (*sigilv1.GetCeremonyResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	c, err := p.Delegation.Ceremony(actor, r.GetOrganizationId(), r.GetCeremonyId())
	if err != nil {
		return nil, err
	}
	return &sigilv1.GetCeremonyResponse{Ceremony: ceremonyMessage(c)}, nil
}

func (s walletService) FetchShare(ctx context.Context, r *sigilv1.FetchShareRequest) (*sigilv1.FetchShareResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	out, err := p.Delegation.FetchShare(ctx, actor, r.GetOrganizationId(), r.GetWalletId())
	if err != nil {
		return nil, err
	}
	return &sigilv1.FetchShareResponse{AgeCiphertext: out.Ciphertext, CreatedAt: timestamppb.New(out.CreatedAt)}, nil
}

func (s walletService) ConfirmShare(ctx context.Context, r *sigilv1.ConfirmShareRequest) (*sigilv1.ConfirmShareResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	w, err := p.Delegation.ConfirmShare(ctx, actor, delegation.NewReceipt{
		RequestID: r.GetRequestId(), Organization: r.GetOrganizationId(), Wallet: r.GetWalletId(), SHA256: r.GetCiphertextSha256(),
	})
	if err != nil {
		return nil, err
	}
	return &sigilv1.ConfirmShareResponse{Wallet: walletMessage(w)}, nil
}

func walletMessage(w delegation.Wallet) *sigilv1.Wallet {
	out := &sigilv1.Wallet{
		WalletId: w.ID, KeyId: w.Key, OwnerUserId: w.Owner, Chain: w.Chain, Name: w.Name, Scheme: string(w.Scheme),
		PublicKey: w.PublicKey, Origin: w.Origin, Custody: w.Custody, SharesHere: w.SharesHere, Epoch: w.Epoch,
	}
	if w.Address != "" {
		out.Address = &w.Address
	}
	if w.Path != "" {
		out.Path = &w.Path
	}
	switch w.Status {
	case "pending":
		out.Status = sigilv1.WalletStatus_WALLET_STATUS_PENDING
	case "active":
		out.Status = sigilv1.WalletStatus_WALLET_STATUS_ACTIVE
	case "failed":
		out.Status = sigilv1.WalletStatus_WALLET_STATUS_FAILED
	}
	return out
}
