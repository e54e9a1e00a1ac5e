package server

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/link"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/signing"
)

// Handlers of peer.proto.

type peerService struct {
	sigilv1.UnimplementedPeerServiceServer
	d *PeerDoor
}

func (s peerService) ListPending(ctx context.Context, _ *sigilv1.ListPendingRequest) (*sigilv1.ListPendingResponse, error) {
	party, err := s.d.appliance.partyOf(ctx)
	if err != nil {
		return nil, err
	}
	p, err := s.d.appliance.open()
	if err != nil {
		return nil, err
	}
	waiting, live, err := p.Delegation.Pending(party)
	if err != nil {
		return nil, err
	}
	out := &sigilv1.ListPendingResponse{ApplianceId: p.Delegation.ApplianceID(), LiveSets: live}
	for _, w := range waiting {
		out.Ceremonies = append(out.Ceremonies, &sigilv1.PendingCeremony{
			CeremonyId: w.ID, Kind: w.Kind, WalletId: w.Wallet, Name: w.Name, Chain: w.Chain, Description: w.Description,
			StartedAt: timestamppb.New(w.StartedAt), EndsAt: timestamppb.New(w.Ends),
		})
	}
	return out, nil
}

func (s peerService) Session(stream grpc.BidiStreamingServer[sigilv1.SessionFrame, sigilv1.SessionFrame]) error {
	ctx := stream.Context()
	party, err := s.d.appliance.partyOf(ctx)
	if err != nil {
		return err
	}
	leave, err := s.d.enter(party)
	if err != nil {
		return err
	}
	defer leave()
	p, err := s.d.appliance.open()
	if err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return refusal.New(refusal.RequestInvalid, "the session has no opening")
	}
	frames := link.NewFrames(stream)
	switch opening := first.GetContent().(type) {
	case *sigilv1.SessionFrame_Join:
		return p.Delegation.Join(ctx, party, opening.Join.GetCeremonyId(), frames)
	case *sigilv1.SessionFrame_OpenSignature:
		if isPeer(party) {
			return refusal.New(refusal.CallerNotAllowed, "a peer signs by a proposal")
		}
		out, err := s.sign(ctx, p, party, opening.OpenSignature.GetRequest(), signing.Together{Party: party, Conn: frames})
		if err != nil {
			return err
		}
		return stream.Send(&sigilv1.SessionFrame{Content: &sigilv1.SessionFrame_Signed{Signed: out}})
	case *sigilv1.SessionFrame_OpenProposal:
		if !isPeer(party) {
			return refusal.New(refusal.CallerNotAllowed, "a device joins what waits for it, or opens a signature")
		}
		apiKey := opening.OpenProposal.GetWalletApiKey()
		defer clear(apiKey)
		return s.propose(ctx, p, party, apiKey, frames)
	}
	return refusal.New(refusal.RequestInvalid, "the session has no opening")
}

// isPeer tells an appliance from a device.
func isPeer(party string) bool { return strings.HasPrefix(party, "peer/") }

// sign runs the ten steps for whom the pin named.
func (s peerService) sign(ctx context.Context, p *Parts, party string, r *sigilv1.SignRequest, with signing.Together) (*sigilv1.SignResponse, error) {
	if err := delegation.CheckRequestID(r.GetRequestId()); err != nil {
		return nil, err
	}
	in := signing.Request{ID: r.GetRequestId(), WalletID: r.GetWalletId(), Method: sigilv1.PeerService_Session_FullMethodName, Caller: journal.Caller{}, Together: with}
	if in.Kind, in.Payload = payloadOf(r); in.Kind == "" {
		return nil, refusal.New(refusal.RequestInvalid, "the request has no payload").With("field", "payload")
	}
	return signResponse(p.Signing.Sign(ctx, in))
}

// propose takes part in what a peer proposes, if our own policy agrees.
func (s peerService) propose(ctx context.Context, p *Parts, party string, apiKey []byte, frames *link.Frames) error {
	o, err := mpc.ReadOffer(ctx, frames)
	if err != nil {
		return refusal.New(refusal.RequestInvalid, "the session has no proposal that can be read").Because(err)
	}
	if err = s.consider(ctx, p, party, apiKey, o); err != nil {
		var no *refusal.Error
		text := "it failed here"
		if errors.As(err, &no) {
			text = string(no.Reason) + ": " + no.Message
		}
		_ = o.Refuse(ctx, text) // it may have been accepted, or be gone
	}
	return err
}

func (s peerService) consider(ctx context.Context, p *Parts, party string, apiKey []byte, o *mpc.Offer) error {
	if o.Op != mpc.OpSign {
		return p.Delegation.Cosign(ctx, party, o)
	}
	wallet, id, err := p.Delegation.CosignedWallet(party, o)
	if err != nil {
		return err
	}
	_, err = p.Signing.Sign(ctx, signing.Request{ID: id, WalletID: wallet, Kind: o.Kind, Payload: o.Payload, APIKey: apiKey,
		Method: sigilv1.PeerService_Session_FullMethodName, Together: signing.Together{Party: party, Offer: o}})
	return err
}
