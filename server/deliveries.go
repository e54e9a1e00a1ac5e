package server

import (
	"context"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/delivery"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/seal"
)

// Handlers of delivery.proto. What is a secret in a message is wiped here; gRPC's
// own buffer of the message is beyond our reach.

type deliveryService struct {
	sigilv1.UnimplementedDeliveryServiceServer
	a *Appliance
}

func (s deliveryService) RegisterWebhook(ctx context.Context, r *sigilv1.RegisterWebhookRequest) (*sigilv1.RegisterWebhookResponse, error) {
	defer func() {
		for _, secret := range r.GetSecrets() {
			clear(secret)
		}
	}()
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	n := delivery.NewWebhook{
		RequestID: r.GetRequestId(), Organization: r.GetOrganizationId(), Environment: r.GetEnvironmentId(), Secrets: r.GetSecrets(),
	}
	switch k := r.GetKey().(type) {
	case *sigilv1.RegisterWebhookRequest_NewKeyBits:
		if k.NewKeyBits == 0 || k.NewKeyBits > 1<<16 {
			return nil, refusal.New(refusal.RequestInvalid, "new_key_bits must be 2048, 3072 or 4096").With("field", "new_key_bits")
		}
		n.Bits = int(k.NewKeyBits)
	case *sigilv1.RegisterWebhookRequest_KeyRef:
		if k.KeyRef == "" {
			return nil, refusal.New(refusal.RequestInvalid, "key_ref is empty").With("field", "key_ref")
		}
		n.KeyRef = seal.KeyRef(k.KeyRef)
	}
	made, err := p.Delivery.RegisterWebhook(ctx, p.Delegation.Acting(actor), n)
	if err != nil {
		return nil, err
	}
	out := &sigilv1.RegisterWebhookResponse{WebhookId: made.WebhookID}
	for _, k := range made.Keys {
		origin := sigilv1.DecryptionKeyOrigin_DECRYPTION_KEY_ORIGIN_DEVICE
		if k.Imported {
			origin = sigilv1.DecryptionKeyOrigin_DECRYPTION_KEY_ORIGIN_IMPORTED
		}
		out.Keys = append(out.Keys, &sigilv1.DecryptionKey{KeyRef: string(k.Ref), PublicKeyPem: k.PublicKeyPEM, Bits: uint32(k.Bits), Origin: origin})
	}
	return out, nil
}

func (s deliveryService) IngestDelivery(ctx context.Context, r *sigilv1.IngestDeliveryRequest) (*sigilv1.IngestDeliveryResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	outcome, err := p.Delivery.Ingest(ctx, p.Delegation.Acting(actor), delivery.Received{
		Webhook: r.GetWebhookId(), Body: r.GetBody(), Signature: r.GetSignature(),
	})
	if err != nil {
		return nil, err
	}
	outcomes := map[delivery.Outcome]sigilv1.DeliveryOutcome{
		delivery.Stored:     sigilv1.DeliveryOutcome_DELIVERY_OUTCOME_STORED,
		delivery.Duplicate:  sigilv1.DeliveryOutcome_DELIVERY_OUTCOME_DUPLICATE,
		delivery.Tombstoned: sigilv1.DeliveryOutcome_DELIVERY_OUTCOME_TOMBSTONED,
		delivery.Ignored:    sigilv1.DeliveryOutcome_DELIVERY_OUTCOME_IGNORED,
	}
	return &sigilv1.IngestDeliveryResponse{Outcome: outcomes[outcome]}, nil
}

func (s deliveryService) ListDeliveries(ctx context.Context, r *sigilv1.ListDeliveriesRequest) (*sigilv1.ListDeliveriesResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	list, err := p.Delivery.Deliveries(p.Delegation.Acting(actor), r.GetOrganizationId(), r.GetAfter())
	if err != nil {
		return nil, err
	}
	out := &sigilv1.ListDeliveriesResponse{}
	for _, d := range list {
		m := &sigilv1.Delivery{
			DeliveryId: d.ID, WebhookId: d.Webhook, EnvironmentId: d.Environment, VendorWalletId: d.Wallet, VendorShareSetId: said(d.ShareSet),
			VendorUserId: said(d.User), Chain: d.Chain, Address: said(d.Address),
			DelegatedAt: timestamppb.New(d.At), TakenAt: timestamppb.New(d.TakenAt),
			DelegationId: said(d.Delegation), Proven: d.Proven, Beside: d.Beside,
		}
		m.Status = sigilv1.DeliveryStatus(sigilv1.DeliveryStatus_value["DELIVERY_STATUS_"+strings.ToUpper(string(d.Status))])
		if !d.RevokedAt.IsZero() {
			m.RevokedAt = timestamppb.New(d.RevokedAt)
		}
		out.Deliveries = append(out.Deliveries, m)
	}
	return out, nil
}
