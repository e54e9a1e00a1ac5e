package server

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
)

// Handlers of order.proto.

type orderService struct {
	sigilv1.UnimplementedOrderServiceServer
	a *Appliance
}

// holderOf is who shows the call's wallet API key.
func holderOf(ctx context.Context, actor delegation.Actor, wallet string) delegation.Holder {
	return delegation.Holder{Actor: actor, WalletID: wallet, APIKey: requestFrom(ctx).apiKey}
}

func (s orderService) OpenOrder(ctx context.Context, r *sigilv1.OpenOrderRequest) (*sigilv1.OpenOrderResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.GetNotAfter().CheckValid(); err != nil {
		return nil, refusal.New(refusal.RequestInvalid, "not_after is no time").With("field", "not_after")
	}
	n := delegation.NewOrder{RequestID: r.GetRequestId(), Template: r.GetTemplate(), Values: map[string]string{}, NotAfter: r.GetNotAfter().AsTime()}
	for _, v := range r.GetValues() {
		if _, twice := n.Values[v.GetName()]; twice {
			return nil, refusal.New(refusal.RequestInvalid, "parameter %.40q has two values", v.GetName()).With("field", "values")
		}
		n.Values[v.GetName()] = v.GetValue()
	}
	if r.Transactions != nil && r.GetTransactions() == 0 {
		return nil, refusal.New(refusal.RequestInvalid, "transactions is 0; leave it out for 1").With("field", "transactions")
	}
	n.Transactions, n.Totals = int(r.GetTransactions()), readTotals(r.GetTotals())
	made, err := p.Delegation.OpenOrder(ctx, holderOf(ctx, actor, r.GetWalletId()), n)
	if err != nil {
		return nil, err
	}
	return &sigilv1.OpenOrderResponse{Order: orderMessage(made)}, nil
}

func (s orderService) CloseOrder(ctx context.Context, r *sigilv1.CloseOrderRequest) (*sigilv1.CloseOrderResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	if err := p.Delegation.CloseOrder(ctx, holderOf(ctx, actor, r.GetWalletId()), r.GetRequestId(), r.GetOrderId()); err != nil {
		return nil, err
	}
	return &sigilv1.CloseOrderResponse{}, nil
}

func (s orderService) ListOrders(ctx context.Context, r *sigilv1.ListOrdersRequest) (*sigilv1.ListOrdersResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	all, err := p.Delegation.Orders(holderOf(ctx, actor, r.GetWalletId()))
	if err != nil {
		return nil, err
	}
	out := &sigilv1.ListOrdersResponse{}
	for _, o := range all {
		out.Orders = append(out.Orders, orderMessage(o))
	}
	return out, nil
}

func (s orderService) EndOrder(ctx context.Context, r *sigilv1.EndOrderRequest) (*sigilv1.EndOrderResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	if err := p.Delegation.EndOrder(ctx, actor, r.GetRequestId(), r.GetOrganizationId(), r.GetDelegationId(), r.GetOrderId()); err != nil {
		return nil, err
	}
	return &sigilv1.EndOrderResponse{}, nil
}

func (s orderService) ShowOrders(ctx context.Context, r *sigilv1.ShowOrdersRequest) (*sigilv1.ShowOrdersResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	all, err := p.Delegation.OpenOrders(actor, r.GetOrganizationId(), r.GetDelegationId())
	if err != nil {
		return nil, err
	}
	out := &sigilv1.ShowOrdersResponse{}
	for _, o := range all {
		out.Orders = append(out.Orders, orderMessage(o))
	}
	return out, nil
}

func orderMessage(o delegation.Order) *sigilv1.Order {
	return &sigilv1.Order{
		OrderId: o.ID, Template: o.Template, Condition: o.Condition, NotAfter: timestamppb.New(o.NotAfter),
		Transactions: uint32(max(o.Transactions, 1)), Totals: totalMessages(o.Totals),
	}
}

func readTotals(in []*sigilv1.AssetTotal) (out []delegation.AssetTotal) {
	for _, t := range in {
		out = append(out, delegation.AssetTotal{Asset: t.GetAsset(), Max: t.GetMaxAmount()})
	}
	return out
}

func totalMessages(in []delegation.AssetTotal) (out []*sigilv1.AssetTotal) {
	for _, t := range in {
		out = append(out, &sigilv1.AssetTotal{Asset: t.Asset, MaxAmount: t.Max})
	}
	return out
}

func readTemplates(in []*sigilv1.PolicyTemplate) ([]delegation.Template, error) {
	var out []delegation.Template
	for _, t := range in {
		made := delegation.Template{Name: t.GetName(), Condition: t.GetCondition(), MaxOpen: int(t.GetMaxOpen()), Longest: t.GetLongestSeconds(), MaxTransactions: int(t.GetMaxTransactions()), Totals: readTotals(t.GetTotals())}
		if t.MaxTransactions != nil && t.GetMaxTransactions() == 0 {
			return nil, refusal.New(refusal.RequestInvalid, "template %q: max_transactions is 0; leave it out for 1", t.GetName()).With("field", "max_transactions")
		}
		for _, p := range t.GetParameters() {
			one := policy.Parameter{Name: p.GetName()}
			switch b := p.GetBound().(type) {
			case *sigilv1.TemplateParameter_Amount:
				one.Min, one.Max = b.Amount.GetMin(), b.Amount.GetMax()
			case *sigilv1.TemplateParameter_Text:
				one.OneOf = b.Text.GetOneOf()
			default:
				return nil, refusal.New(refusal.RequestInvalid, "template %q: parameter %q has no bound", t.GetName(), p.GetName()).With("field", "bound")
			}
			made.Parameters = append(made.Parameters, one)
		}
		out = append(out, made)
	}
	return out, nil
}

func templateMessages(in []delegation.Template) []*sigilv1.PolicyTemplate {
	var out []*sigilv1.PolicyTemplate
	for _, t := range in {
		m := &sigilv1.PolicyTemplate{Name: t.Name, Condition: t.Condition, MaxOpen: uint32(t.MaxOpen), LongestSeconds: t.Longest, Totals: totalMessages(t.Totals)}
		if t.MaxTransactions > 0 {
			most := uint32(t.MaxTransactions)
			m.MaxTransactions = &most
		}
		for _, p := range t.Parameters {
			one := &sigilv1.TemplateParameter{Name: p.Name, Bound: &sigilv1.TemplateParameter_Amount{Amount: &sigilv1.AmountBound{Min: p.Min, Max: p.Max}}}
			if len(p.OneOf) > 0 {
				one.Bound = &sigilv1.TemplateParameter_Text{Text: &sigilv1.TextChoice{OneOf: p.OneOf}}
			}
			m.Parameters = append(m.Parameters, one)
		}
		out = append(out, m)
	}
	return out
}
