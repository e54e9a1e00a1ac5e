package server

import (
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
)

func TestTemplatesTravel(t *testing.T) {
	want := []delegation.Template{{
		Name: "pay", Condition: "solana.tx.transfers.all(t, t.to == ${payee} && t.amount <= ${amount})", MaxOpen: 2, Longest: 60,
		Parameters: []policy.Parameter{{Name: "payee", OneOf: []string{"a", "b"}}, {Name: "amount", Min: "1", Max: "500"}},
	}}
	if got, err := readTemplates(templateMessages(want)); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	unbound := []*sigilv1.PolicyTemplate{{Name: "pay", Parameters: []*sigilv1.TemplateParameter{{Name: "x"}}}}
	if got, err := readTemplates(unbound); !refusal.Is(err, refusal.RequestInvalid) {
		t.Errorf("a parameter without a bound: %+v, %v", got, err)
	}
}

// Orders need a key that opens the wallet, over the socket as anywhere.
func TestOrdersOverTheSocket(t *testing.T) {
	a := newAppliance(t)
	a.Unsealed(a.parts)
	value := &sigilv1.ParameterValue{Name: "amount", Value: "1"}
	ask := func(change func(*sigilv1.OpenOrderRequest)) *sigilv1.OpenOrderRequest {
		r := &sigilv1.OpenOrderRequest{RequestId: "r", WalletId: "wal_x", Template: "pay", Values: []*sigilv1.ParameterValue{value}, NotAfter: timestamppb.New(time.Now().Add(time.Minute))}
		change(r)
		return r
	}
	none, wrong := a.app.Orders(), a.app.WithAPIKey([]byte(testAPIKey)).Orders()
	good := ask(func(*sigilv1.OpenOrderRequest) {})
	_, err := none.OpenOrder(t.Context(), good)
	wantReason(t, "no key", err, "API_KEY_INVALID")
	_, err = wrong.OpenOrder(t.Context(), good)
	wantReason(t, "a wrong key", err, "API_KEY_INVALID")
	_, err = wrong.CloseOrder(t.Context(), &sigilv1.CloseOrderRequest{RequestId: "r", WalletId: "wal_x", OrderId: "ord_x"})
	wantReason(t, "closing with a wrong key", err, "API_KEY_INVALID")
	_, err = wrong.ListOrders(t.Context(), &sigilv1.ListOrdersRequest{WalletId: "wal_x"})
	wantReason(t, "listing with a wrong key", err, "API_KEY_INVALID")
	_, err = wrong.OpenOrder(t.Context(), ask(func(r *sigilv1.OpenOrderRequest) { r.Values = append(r.Values, value) }))
	wantReason(t, "two values", err, "REQUEST_INVALID")
	_, err = wrong.OpenOrder(t.Context(), ask(func(r *sigilv1.OpenOrderRequest) { r.NotAfter = nil }))
	wantReason(t, "no end", err, "REQUEST_INVALID")
}
